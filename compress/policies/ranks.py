"""Ranks from descending values: the arithmetic that policies share."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

EPS = float(np.finfo(np.float64).eps)
TINY = float(np.finfo(np.float64).tiny)


def check_sigma(sigma) -> Float[np.ndarray, " n"]:
    """`sigma` in double precision; ValueError unless it is a vector of numbers from 0 on."""
    sigma = np.asarray(sigma, np.float64)
    if sigma.ndim != 1 or not len(sigma):
        raise ValueError(f"`sigma` must have one dimension and a value, got shape {sigma.shape}")
    if not (np.all(np.isfinite(sigma)) and np.all(sigma >= 0)):
        raise ValueError("`sigma` must be 0 or more, got NaN, infinity or a negative value")
    return sigma


def tails(weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n+1"]:
    """tails[r] = sum(weights[r:]), summed from the small end so that no digit is lost."""
    return np.append(np.cumsum(weights[::-1])[::-1], 0.0)


def smallest_rank(weights: Float[np.ndarray, " n"], allowed: float) -> int:
    """The smallest r, 1 or more, with sum(weights[r:]) <= `allowed`.

    A sum that reaches its limit up to rounding has reached it.
    """
    slack = 1 + 4 * len(weights) * EPS
    within = tails(weights) <= allowed * slack
    return 1 + int(np.argmax(within[1:]))


def above_tie(rank: int, sigma: Float[np.ndarray, " n"], gap: float = 1e-8) -> int:
    """`rank`, raised until sigma[rank] is smaller than sigma[rank - 1] by a share of `gap`.

    Values below n * 2.2e-16 * sigma[0] are rounding, not ties.
    """
    sigma = check_sigma(sigma)
    noise = len(sigma) * EPS * sigma[0]
    while rank < len(sigma) and sigma[rank] > noise and sigma[rank] >= (1 - gap) * sigma[rank - 1]:
        rank += 1
    return rank


def most_valuable(worth: Sequence[Float[np.ndarray, "..."]], states: int) -> list[int]:
    """How many of the `states` most valuable ones each layer has, at least one. `worth` are the
    descending values of each layer."""
    first = np.concatenate([np.arange(len(w)) == 0 for w in worth])
    layer = np.concatenate([np.full(len(w), k) for k, w in enumerate(worth)])
    order = np.lexsort((-np.concatenate(worth), ~first))[:states]
    return np.bincount(layer[order], minlength=len(worth)).tolist()


def next_multiple(rank: int, multiple: int, n: int) -> int:
    """The next multiple from `rank` on, `n` at most."""
    return min(n, -(-rank // multiple) * multiple)
