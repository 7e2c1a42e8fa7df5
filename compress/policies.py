"""How many states to keep: small functions from Hankel singular values to a rank.

A policy takes the descending values `sigma` of one layer and returns a rank between 1 and n:

    policy = round_up(error_budget(0.01), 8)
    rank = policy(sigma)

`tolerance`, `energy`, `error_budget`, `fixed` and `fraction` make policies; `round_up`, `at_least`,
`keep_ties`, `smallest` and `largest` make policies from policies. `global_budget`, `alike` and
`loss_budget` look at all layers at once.

Of the real map (form="real", and all that is weighed by data) a state's value is the sum of two
Hankel singular values, those of a conjugate pair of modes. A state that is a real mode holds but
one of the two, which is known only when the cut has been made. `plan` then raises the rank of a
`Budget` (`tolerance` and `error_budget`, and these rounded up) until what is dropped is within it;
a rank of any other policy, made from budgets or not, is taken as it is, and drops up to one value
more for each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from beartype import beartype
from jaxtyping import Float, PyTree, jaxtyped

Policy = Callable[[Float[np.ndarray, " n"]], int]


@dataclass(frozen=True)
class JointPolicy:
    """A policy for all layers together.

    `ranks(sigmas, cut)` takes the values of every layer, and a function that gives the model with
    its layers cut to ranks of one's choice.
    """

    ranks: Callable[[Sequence[Float[np.ndarray, "..."]], Callable[[list[int]], PyTree]], list[int]]


@dataclass(frozen=True)
class Budget:
    """A policy that says how much may be dropped: the smallest r with sum(sigma[r:]) within it."""

    allowed: Callable[[Float[np.ndarray, " n"]], float]
    """From the values to the sum of those that may be dropped."""
    multiples: tuple[int, ...] = ()
    """What the rank is rounded up to multiples of, one after the other."""

    def __call__(self, sigma: Float[np.ndarray, " n"]) -> int:
        sigma = _checked(sigma)
        return self.rounded(smallest_rank(sigma, self.allowed(sigma)), len(sigma))

    def rounded(self, rank: int, n: int) -> int:
        """The next of the multiples from `rank` on, `n` at most."""
        for multiple in self.multiples:
            rank = _next_multiple(rank, multiple, n)
        return rank


@jaxtyped(typechecker=beartype)
def tolerance(tau: float | int) -> Budget:
    """The smallest r with sum(sigma[:r]) >= (1 - tau) * sum(sigma) (CompreSSM, section 3).

    ValueError for `tau` outside [0, 1). `tau` = 0 keeps every sigma above zero.
    """
    _check_share("tolerance", tau)
    return Budget(lambda sigma: float(tau * _tails(sigma)[0]))


@jaxtyped(typechecker=beartype)
def energy(tau: float | int) -> Policy:
    """`tolerance` on squares: the smallest r with sum(sigma[:r]^2) >= (1 - tau) * sum(sigma^2)."""
    _check_share("energy", tau)

    def policy(sigma):
        sigma = _checked(sigma)
        squares = np.square(sigma / max(sigma[0], TINY))
        return smallest_rank(squares, float(tau * _tails(squares)[0]))

    return policy


@jaxtyped(typechecker=beartype)
def error_budget(epsilon: float | int) -> Budget:
    """The smallest r whose error bound 2 * sum(sigma[r:]) is at most `epsilon` * sigma[0].

    ValueError for `epsilon` below zero, or not finite.
    """
    if not (0 <= epsilon < math.inf):
        raise ValueError(f"epsilon={epsilon}, allowed: 0 or more, finite")
    return Budget(lambda sigma: float(epsilon * sigma[0] / 2))


@jaxtyped(typechecker=beartype)
def fixed(rank: int) -> Policy:
    """This rank, or n where a layer has fewer states. ValueError for a rank below 1."""
    _check_count("rank", rank)
    return lambda sigma: min(rank, len(_checked(sigma)))


@jaxtyped(typechecker=beartype)
def fraction(share: float | int) -> Policy:
    """This share of the layer's states, rounded up. ValueError for a share outside (0, 1]."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share}, allowed: above 0, at most 1")

    def policy(sigma):
        n = len(_checked(sigma))
        return max(1, math.ceil(share * n - n * EPS))

    return policy


@jaxtyped(typechecker=beartype)
def round_up(policy: Policy, multiple: int) -> Policy:
    """The policy's rank, up to the next multiple (vector width, fewer compilations), at most n.

    A cut of the real map may leave one state fewer, where a pair of modes would be torn apart.
    """
    _check_count("multiple", multiple)
    if isinstance(policy, Budget):
        return replace(policy, multiples=(*policy.multiples, multiple))
    return lambda sigma: _next_multiple(policy(sigma), multiple, len(sigma))


@jaxtyped(typechecker=beartype)
def at_least(policy: Policy, rank: int) -> Policy:
    """The policy's rank, but no less than `rank` (or n, where a layer has fewer states)."""
    return largest(policy, fixed(rank))


@jaxtyped(typechecker=beartype)
def smallest(*policies: Policy) -> Policy:
    """The smallest of the policies' ranks."""
    return _combine(min, policies)


@jaxtyped(typechecker=beartype)
def largest(*policies: Policy) -> Policy:
    """The largest of the policies' ranks."""
    return _combine(max, policies)


@jaxtyped(typechecker=beartype)
def keep_ties(policy: Policy, gap: float = 1e-8) -> Policy:
    """The policy's rank, raised until sigma[r] falls short of sigma[r - 1] by a share of `gap`.

    Values in a tie belong to one subspace (a conjugate pair, a symmetry of the system); a cut
    through it keeps an arbitrary part. Values below n * 2.2e-16 * sigma[0] are rounding, not ties.
    """

    def policy_with_ties(sigma):
        sigma, rank = _checked(sigma), policy(sigma)
        noise = len(sigma) * EPS * sigma[0]
        while rank < len(sigma) and sigma[rank] > noise and _tied(sigma, rank, gap):
            rank += 1
        return rank

    return policy_with_ties


@jaxtyped(typechecker=beartype)
def global_budget(states: int) -> JointPolicy:
    """So many states in all, spent where they matter most; at least one for each layer.

    A state's worth is its share of its layer's sum(sigma): layers of large gain count no more than
    others. ValueError for a budget below 1, and when used, for one below the number of layers.
    """
    _check_count("states", states)

    def ranks(sigmas, cut):
        if states < len(sigmas):
            raise ValueError(
                f"states={states}, allowed: {len(sigmas)}, the number of layers, or more"
            )
        worth = [_checked(sigma) / max(float(np.sum(sigma)), TINY) for sigma in sigmas]
        first = np.concatenate([np.arange(len(w)) == 0 for w in worth])
        layer = np.concatenate([np.full(len(w), k) for k, w in enumerate(worth)])
        order = np.lexsort((-np.concatenate(worth), ~first))[:states]
        return np.bincount(layer[order], minlength=len(sigmas)).tolist()

    return JointPolicy(ranks)


@jaxtyped(typechecker=beartype)
def alike(policy: Policy) -> JointPolicy:
    """The largest of the policy's ranks for all layers, as file formats with one size need it."""

    def ranks(sigmas, cut):
        rank = max(policy(sigma) for sigma in sigmas)
        return [min(rank, len(sigma)) for sigma in sigmas]

    return JointPolicy(ranks)


@jaxtyped(typechecker=beartype)
def loss_budget(
    loss: Callable[[PyTree], float],
    rise: float | int,
    *,
    along: Callable[[float], Policy] = tolerance,
    steps: int = 8,
) -> JointPolicy:
    """The largest cut after which `loss(model)` is at most `rise` above what it is now.

    `along(tau)` gives the policies that are tried, of tau between 1e-4 and 1, by bisection of
    log(tau) in `steps` steps. The loss is taken to rise with tau. Every trial is a model of other
    shapes, so a jitted loss compiles anew. ValueError if `rise` is below zero or not finite.
    """
    if not 0 <= rise < math.inf:
        raise ValueError(f"rise={rise}, allowed: 0 or more, finite")
    _check_count("steps", steps)

    def ranks(sigmas, cut):
        best = [len(sigma) for sigma in sigmas]
        limit = float(loss(cut(best))) + rise
        tried = {tuple(best): True}
        low, high = math.log(1e-4), 0.0
        for _ in range(steps):
            middle = (low + high) / 2
            trial = [along(math.exp(middle))(sigma) for sigma in sigmas]
            if tuple(trial) not in tried:
                tried[tuple(trial)] = float(loss(cut(trial))) <= limit
            if tried[tuple(trial)]:
                low, best = middle, trial
            else:
                high = middle
        return best

    return JointPolicy(ranks)


@jaxtyped(typechecker=beartype)
def gated(rank: int, before: int, gate: float | int = 0.95) -> int:
    """`rank` if it is under `gate` * `before`, else `before`: small cuts do not pay.

    The paper's gate is 95 %. ValueError for a gate outside (0, 1].
    """
    if not 0 < gate <= 1:
        raise ValueError(f"gate={gate}, allowed: above 0, at most 1")
    return rank if rank < gate * before else before


EPS = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)


def _checked(sigma) -> Float[np.ndarray, " n"]:
    sigma = np.asarray(sigma, np.float64)
    if sigma.ndim != 1 or not len(sigma):
        raise ValueError(f"sigma has shape {sigma.shape}, allowed: one dimension, not empty")
    if not (np.all(np.isfinite(sigma)) and np.all(sigma >= 0)):
        raise ValueError("sigma holds NaN, infinity or a negative value, allowed: 0 or more")
    return sigma


def _tails(weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n+1"]:
    """tails[r] = sum(weights[r:]), summed from the small end so that no digit is lost."""
    return np.append(np.cumsum(weights[::-1])[::-1], 0.0)


def _slack(weights: Float[np.ndarray, " n"]) -> float:
    """A sum that reaches its limit up to rounding has reached it."""
    return 1 + 4 * len(weights) * EPS


def smallest_rank(weights: Float[np.ndarray, " n"], allowed: float) -> int:
    """The smallest r, 1 or more, with sum(weights[r:]) <= `allowed`."""
    within = _tails(weights) <= allowed * _slack(weights)
    return 1 + int(np.argmax(within[1:]))


def _next_multiple(rank: int, multiple: int, n: int) -> int:
    return min(n, -(-rank // multiple) * multiple)


def _tied(sigma: Float[np.ndarray, " n"], rank: int, gap: float) -> bool:
    return bool(sigma[rank] >= (1 - gap) * sigma[rank - 1])


def _combine(choose, policies: tuple[Policy, ...]) -> Policy:
    if not policies:
        raise ValueError("policies=(), allowed: one policy or more")
    return lambda sigma: choose(policy(sigma) for policy in policies)


def _check_share(name: str, tau: float | int) -> None:
    if not 0 <= tau < 1:
        raise ValueError(f"{name}={tau}, allowed: 0 or more, below 1")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}, allowed: 1 or more")
