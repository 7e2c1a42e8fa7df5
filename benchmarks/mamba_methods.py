"""The ways to cut a selective layer that `benchmarks/mamba.py` compares.

`compress` has the best ones; the others are here, each a function from a layer, its moments and a
rank to another layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Complex, Float, Int

from compress.numerics.moments import balanced as of_full_rank
from compress.numerics.moments import least_missed
from compress.selective.basis import galerkin
from compress.selective.cut import SharedBasis, fold
from compress.selective.moments import StateMoments, contributions, state_moments
from compress.selective.refit import Refit
from zoo import AbstractMambaSSM, AbstractSSM

from .linearize import to_lti

Inputs = Float[np.ndarray, "b L H"]


@dataclass(frozen=True)
class Observed:
    """A layer, and its recordings on calibration data."""

    layer: AbstractMambaSSM
    inputs: Inputs
    gradients: Inputs
    moments: StateMoments

    @classmethod
    def on(cls, layer: AbstractMambaSSM, inputs: Inputs, gradients: Inputs) -> "Observed":
        return cls(layer, inputs, gradients, state_moments(layer, inputs, gradients))


def shared(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(a) The shared basis, folded."""
    return fold(seen.layer, _shared_basis(seen.moments, rank))


def shared_and_refitted(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(a) with C fitted afterwards: what `compress` does."""
    return _refitted(seen, _shared_basis(seen.moments, rank))


def shared_plain(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(a) as first tried: all channels count alike in the mean of A, and gradients not at all."""
    moments = state_moments(seen.layer, seen.inputs)
    P, Q, _ = moments.grouped()[0]
    V, W = galerkin(P, Q, np.mean(moments.A, axis=0), rank)
    return fold(seen.layer, SharedBasis(V[None], W[None]))


def _shared_basis(moments: StateMoments, rank: int) -> SharedBasis:
    pairs = [galerkin(P, Q, A, rank) for P, Q, A in moments.grouped()]
    return SharedBasis(*(np.stack(of_groups) for of_groups in zip(*pairs, strict=True)))


def _refitted(seen: Observed, basis: SharedBasis) -> AbstractMambaSSM:
    after = fold(seen.layer, basis)
    C = Refit(seen.layer, seen.inputs, seen.gradients).fitted(after, basis.V)
    return fold(seen.layer, basis, C)


def by_energy(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(b) The states of largest E[(dy C_n h_dn)^2], summed over channels."""
    return _selected(seen, rank, lambda K: np.argsort(-np.diag(K), kind="stable"))


def by_what_is_missed(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(b) One after the other goes that is missed least: what `compress` does to Mamba-2."""
    K = contributions(seen.layer, seen.inputs, seen.gradients)
    states = [least_missed(of_group, rank) for of_group in K]
    return fold(seen.layer, SharedBasis.selection(states, seen.layer.d_state))


def by_qr(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(b) The states whose contributions to the output a QR with pivoting takes first."""

    def order(K):
        values, vectors = np.linalg.eigh(K)
        root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
        *_, order = scipy.linalg.qr(root, pivoting=True)
        return order

    return _selected(seen, rank, order)


def by_statistics(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(b) Controllability times observability, of each state over all channels (GHOST)."""
    states = [
        np.argsort(-np.diag(P) * np.diag(Q), kind="stable")[:rank]
        for P, Q, _ in seen.moments.grouped()
    ]
    return fold(seen.layer, SharedBasis.selection(states, seen.layer.d_state))


def at_random(seen: Observed, rank: int, seed: int = 0) -> AbstractMambaSSM:
    """(d) Any states."""
    rng = np.random.default_rng(seed)
    N, groups = seen.layer.d_state, seen.moments.groups
    states = [rng.choice(N, rank, replace=False) for _ in range(groups)]
    return fold(seen.layer, SharedBasis.selection(states, N))


def selected_and_refitted(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(b) by what is missed, with C fitted afterwards."""
    K = contributions(seen.layer, seen.inputs, seen.gradients)
    states = [least_missed(of_group, rank) for of_group in K]
    return _refitted(seen, SharedBasis.selection(states, seen.layer.d_state))


def _selected(seen: Observed, rank: int, order: Callable[[Any], Any]) -> AbstractMambaSSM:
    states = [order(K)[:rank] for K in contributions(seen.layer, seen.inputs, seen.gradients)]
    return fold(seen.layer, SharedBasis.selection(states, seen.layer.d_state))


class PerChannel(AbstractSSM):
    """(c) A selective layer whose channels each have a basis of their own, at run time."""

    dynamics = ()
    layer: AbstractMambaSSM
    lam: Complex[Array, "d r"]
    to_state: Complex[Array, "d r N"]
    from_state: Complex[Array, "d N r"]

    @property
    def d_model(self) -> int:
        return self.layer.d_model

    @property
    def d_state(self) -> int:
        return self.lam.shape[1]

    def __call__(self, u: Float[Array, "L H"]) -> Float[Array, "L H"]:
        signals, G, d = self.layer.signals(u), self.layer.groups, len(self.lam)

        def step(h, sample):
            x, dt, B, C = (jnp.repeat(a, d // G, axis=0) if a.ndim == 2 else a for a in sample)
            B, C = (
                jnp.einsum("drn,dn->dr", self.to_state, B),
                jnp.einsum("dn,dnr->dr", C, self.from_state),
            )
            h = jnp.exp(dt[:, None] * self.lam) * h + (dt * x)[:, None] * B
            return h, jnp.real(jnp.sum(C * h, axis=-1))

        _, y = jax.lax.scan(step, jnp.zeros_like(self.lam), tuple(signals))
        return self.layer.emit(u, y)

    def run(self, carry: Any, u: Float[Array, "L H"], length: Int[Array, ""] | int | None = None):
        raise NotImplementedError("only whole sequences")

    def resized(self, n: int):
        raise NotImplementedError("its states are not cut")

    def first_states(self, n: int):
        raise NotImplementedError("its states are not cut")

    def init_state(self):
        raise NotImplementedError("only whole sequences")

    def step(self, carry: Any, u_t: Float[Array, " H"]):
        raise NotImplementedError("only whole sequences")


def per_channel(seen: Observed, rank: int) -> PerChannel:
    """(c) Balanced channel by channel, by the states' own moments."""
    return _per_channel(seen.layer, seen.moments.P, seen.moments.Q, rank)


def per_channel_mean(seen: Observed, rank: int) -> PerChannel:
    """(c) Balanced channel by channel, by the Gramians of the mean surrogate."""
    P, Q = to_lti(seen.layer, seen.inputs, kind="mean").gramians()
    return _per_channel(seen.layer, P, Q, rank)


def _per_channel(layer: AbstractMambaSSM, P, Q, rank: int) -> PerChannel:
    A = np.asarray(layer.eigenvalues, np.float64)
    d, N = A.shape
    lam = np.full((d, rank), -1.0 + 0j)  # states without input or output where fewer are enough
    to_state, from_state = np.zeros((d, rank, N), complex), np.zeros((d, N, rank), complex)
    for k in range(d):
        V, W = balanced(P[k], Q[k], rank)
        values, R = np.linalg.eig(W @ (A[k][:, None] * V))
        r = len(values)
        lam[k, :r] = np.minimum(np.real(values), -1e-6) + 1j * np.imag(values)
        to_state[k, :r], from_state[k, :, :r] = np.linalg.solve(R, W), V @ R
    arrays = (jnp.asarray(a, jnp.complex64) for a in (lam, to_state, from_state))
    return PerChannel(layer, *arrays)


def balanced(P, Q, rank: int) -> tuple[Float[np.ndarray, "N r"], Float[np.ndarray, "r N"]]:
    """The balancing basis by the square root method, of fewer states where no more are seen."""

    def root(moments):
        values, vectors = np.linalg.eigh((moments + moments.T) / 2)
        return vectors * np.sqrt(np.maximum(values, 0))

    Lp, Lq = root(P), root(Q)
    X, sigma, Yh = np.linalg.svd(Lq.T @ Lp)
    r = max(1, min(rank, int(np.sum(sigma > 1e-12 * sigma[0]))))
    scale = np.sqrt(sigma[:r])
    V, W = Lp @ Yh[:r].T / scale, (Lq @ X[:, :r] / scale).T
    return V, np.linalg.solve(W @ V, W)


def mapped(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(a) for Mamba-2, exact in A: the balanced basis of each group, in maps that are kept."""
    return fold(seen.layer.with_maps(), _balanced_basis(seen.moments, rank))


def mapped_and_refitted(seen: Observed, rank: int) -> AbstractMambaSSM:
    """(a) for Mamba-2 with C fitted afterwards."""
    layer, basis = seen.layer.with_maps(), _balanced_basis(seen.moments, rank)
    C = Refit(layer, seen.inputs, seen.gradients).fitted(fold(layer, basis), basis.V)
    return fold(layer, basis, C)


def _balanced_basis(moments: StateMoments, rank: int) -> SharedBasis:
    pairs = [of_full_rank(P, Q, rank) for P, Q, _ in moments.grouped()]
    return SharedBasis(*(np.stack(of_groups) for of_groups in zip(*pairs, strict=True)))


Method = Callable[[Observed, int], AbstractSSM]

METHODS: dict[str, dict[str, Method]] = {
    "mamba": {
        "(a) shared, C refitted": shared_and_refitted,
        "(a) shared": shared,
        "(a) shared, as first tried": shared_plain,
        "(b) least missed": by_what_is_missed,
        "(b) energy": by_energy,
        "(b) least missed, C refitted": selected_and_refitted,
        "(b) statistics": by_statistics,
        "(b) QR": by_qr,
        "(c) per channel": per_channel,
        "(c) per channel, mean surrogate": per_channel_mean,
        "(d) random": at_random,
    },
    "mamba2": {
        "(a) shared, maps kept": mapped,
        "(a) shared, maps kept, C refitted": mapped_and_refitted,
        "(b) least missed": by_what_is_missed,
        "(b) energy": by_energy,
        "(b) statistics": by_statistics,
        "(b) QR": by_qr,
        "(c) per channel": per_channel,
        "(c) per channel, mean surrogate": per_channel_mean,
        "(d) random": at_random,
    },
}

TRAINED_ON = {
    "(a) shared, C refitted",
    "(a) shared, maps kept",
    "(b) least missed",
}
"""The methods whose models are trained on for a while."""
