"""Bases and selections of states from two second moments.

P are the moments of the states, Q those of the gradients by them: replacing h by V W h
changes the result by mu^T (1 - V W) h.
"""

import numpy as np
import scipy
from jaxtyping import Float

Gramian = Float[np.ndarray, "N N"]
Basis = tuple[Float[np.ndarray, "N r"], Float[np.ndarray, "r N"]]
"""V and W with W V = I: h near V g, g = W h."""


def hankel_values(P: Gramian, Q: Gramian) -> Float[np.ndarray, " N"]:
    """The square roots of the eigenvalues of P Q, descending: the loss from dropping each state."""
    return np.asarray(scipy.linalg.svdvals(root(Q).T @ root(P)))


def balanced(P: Gramian, Q: Gramian, rank: int) -> Basis:
    """The balancing basis, by the square root method, for layers that allow any basis. A small
    multiple of the identity is added to P and Q, so that there are `rank` states for any data. Both
    are taken in units of their traces: V and W are then of one size.
    """
    P, Q = (x / max(np.trace(x), TINY) + UNSEEN / len(x) * np.eye(len(x)) for x in (P, Q))
    Lp, Lq = root(P), root(Q)
    X, sigma, Yh = np.linalg.svd(Lq.T @ Lp)
    scale = np.sqrt(sigma[:rank])
    return Lp @ Yh[:rank].T / scale, (Lq @ X[:, :rank] / scale).T


def orthonormal(P: Gramian, Q: Gramian, rank: int) -> Basis:
    """The basis of orthonormal V = W^T in which both P and Q are large, in units of their traces:
    the leading eigenvectors of their sum."""
    total = sum(x / max(np.trace(x), TINY) for x in (P, Q))
    U = np.linalg.eigh((total + np.transpose(total)) / 2)[1][:, ::-1][:, :rank]
    return U, U.T


def least_missed(K: Gramian, rank: int) -> list[int]:
    """The states to keep if states cannot be mixed: the state with the smallest loss is dropped,
    one after another. `K` are the moments of contributions (`compress.selective.contributions`).
    The loss is the sum of the moments between dropped states, so that states that cancel each other
    are dropped together.
    """
    kept = list(range(len(K)))
    missed = np.zeros(len(K))  # twice what each shares with those that have gone
    while len(kept) > rank:
        least = min(kept, key=lambda n: float(K[n, n] + missed[n]))
        kept.remove(least)
        missed += 2 * K[least]
    return kept


def root(moments: Gramian) -> Gramian:
    """L with L L^T = `moments`."""
    values, vectors = np.linalg.eigh((moments + moments.T) / 2)
    return vectors * np.sqrt(np.maximum(values, 0))


UNSEEN = 1e-14
"""Share of the trace that is added to second moments, so that none of them is singular."""

TINY = float(np.finfo(float).tiny)
