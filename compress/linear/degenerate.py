"""Gradients inside blocks of states that share an eigenvalue (see `compress.linear.lift`)."""

from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Bool, Complex, Int

RESOLVED = 1e-4
"""Smallest part of the largest eigenvalue of a block's Gram matrix that is inverted: gradients come
in single precision, as averages."""


@dataclass(frozen=True)
class Block:
    """States that share an eigenvalue, and what of G_ij follows from the G_ii.

    With M = sum over l of a_l C_l B_l, the smallest one, G_ij = sum over l of CC_il a_l BB_jl.
    """

    states: Int[np.ndarray, " k"]
    CC: Complex[np.ndarray, "k k"]
    """C_i^H C_l."""
    BB: Complex[np.ndarray, "k k"]
    """The conjugate of B_j times B_l."""
    inverse: Complex[np.ndarray, "k k"]
    """From the G_ii to the a_l."""

    def add_to(
        self,
        by_A: Complex[np.ndarray, "n n"],
        by_A_conj: Complex[np.ndarray, "n n"],
        by_lam: Complex[np.ndarray, " n"],
    ) -> None:
        """Add the G_ij with i != j, which follow from the gradients by all eigenvalues.

        `by_A_conj` takes those where j is a conjugate; states from n on are conjugates.
        """
        n = len(by_lam)
        known = np.concatenate([by_lam, by_lam.conj()])[self.states]
        G = (self.CC * (self.inverse @ known)) @ self.BB.T
        np.fill_diagonal(G, 0)
        own, others = np.flatnonzero(self.states < n), np.flatnonzero(self.states >= n)
        states, conjugates = self.states[own], self.states[others] - n
        by_A[states[:, None], states] += G[own[:, None], own]
        by_A_conj[states[:, None], conjugates] += G[own[:, None], others]

    def shares(
        self, v: Complex[np.ndarray, " k"], w: Complex[np.ndarray, " k"]
    ) -> Complex[np.ndarray, " k"]:
        """s_l such that the sum of conj(s_l) G_ll is that of conj(v_i) G_ij conj(w_j), i != j."""
        of_all = (v @ self.CC.conj()) * (w @ self.BB.conj())
        of_diagonal = (v * w) @ (self.CC * self.BB).conj()
        return (of_all - of_diagonal) @ self.inverse.conj()


def blocks(
    near: Bool[np.ndarray, "n n"], B: Complex[np.ndarray, "n m"], C: Complex[np.ndarray, "p n"]
) -> list[Block]:
    """The blocks of states joined by `near`; states that stand alone are in none."""
    if np.count_nonzero(near) == len(near):
        return []
    count, label = scipy.sparse.csgraph.connected_components(near, directed=False)
    sizes = np.bincount(label, minlength=count)
    return [_block(np.flatnonzero(label == k), B, C) for k in np.flatnonzero(sizes > 1)]


def _block(states, B, C) -> Block:
    B, C = B[states], C[:, states]
    CC, BB = C.conj().T @ C, B.conj() @ B.T
    gram = CC * BB
    size = np.sqrt(np.real(np.diag(gram)))
    unit = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
    inverse = np.linalg.pinv(unit[:, None] * gram * unit, rcond=RESOLVED, hermitian=True)
    return Block(states, CC, BB, unit[:, None] * inverse * unit)
