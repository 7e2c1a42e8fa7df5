"""Bases of few states that all channels of a selective layer share.

Channels of one group see the same B and C, so one pair V [N r], W [r N] with W V = I, h near V g,
can be folded into the maps that make B and C: B_r = W B, C_r = V^T C. A channel's diag(A) becomes W
diag(A) V. The layer stays of its kind only if this is diagonal and real.
"""

import numpy as np
from jaxtyping import Float

from ..numerics.moments import TINY, Basis, Gramian


def galerkin(P: Gramian, Q: Gramian, A: Float[np.ndarray, " N"], rank: int) -> Basis:
    """The basis in which both P and Q are large, chosen so that diag(A) stays real and diagonal.

    States are scaled so that diag P = diag Q, and the leading eigenvectors U of P / tr P + Q / tr Q
    kept. As U^T U = I, U^T diag(A) U is symmetric, and for A < 0 negative definite: its eigenvalues
    lie between those of A, and its eigenvectors make it diagonal. True balancing preserves a little
    more, but mostly has complex eigenvalues.
    """
    scale = _equal_diagonals(P, Q)
    P, Q = P * scale[:, None] * scale, Q / scale[:, None] / scale
    total = P / max(np.trace(P), TINY) + Q / max(np.trace(Q), TINY)
    U = np.linalg.eigh((total + total.T) / 2)[1][:, ::-1][:, :rank]
    U = U @ np.linalg.eigh(U.T @ (A[:, None] * U))[1][:, ::-1]
    return U / scale[:, None], U.T * scale


def _equal_diagonals(P: Gramian, Q: Gramian) -> Float[np.ndarray, " N"]:
    """The scale of the states with diag P * scale^2 = diag Q / scale^2, where both are above a
    floor."""
    p, q = np.diag(P), np.diag(Q)
    p, q = (np.maximum(x, RESOLUTION * max(float(np.max(x)), TINY)) for x in (p, q))
    return (q / p) ** 0.25


RESOLUTION = 1e-12
"""Least share of the largest second moment that scales a state."""
