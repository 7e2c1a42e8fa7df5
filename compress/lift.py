"""What a change of a reduced system is in the full one, and the gradient's way back.

The reduced system is lam_r, B_r = W B, C_r = C V. The lift takes a change of it to the change
dA = V diag(dlam_r) W, dB = V dB_r, dC = dC_r W of the full system, which is then made diagonal
again to first order, with X_ij = dA_ij / (lam_j - lam_i) off the diagonal:

    dlam_i = dA_ii,    dB <- dB - X B,    dC <- dC + C X.

A gradient goes the other way, through the adjoint. Gradients are those of `PerEntry`.
"""

import numpy as np
from jaxtyping import Complex

from zoo import DiagonalLTI

from .parameters import PerEntry

V_ = Complex[np.ndarray, "n r"]
W_ = Complex[np.ndarray, "r n"]


def pull_back(gradient: PerEntry, lti: DiagonalLTI, V: V_, W: W_) -> PerEntry:
    """The gradient by the reduced system, from that by the full one, `lti`.

    Exact when nothing is lost (r = n); close as long as C (zI - A)^-1 V is close to its reduced
    counterpart, which is what truncation aims at.
    """
    lam, lam_r = _eigenvalues(lti, V, W)
    couple = _couplings(lti, RESOLUTION)
    B, C = np.asarray(lti.B), np.asarray(lti.C)
    by_A = couple.conj() * (C.conj().T @ gradient.C - gradient.B @ B.conj().T)
    np.fill_diagonal(by_A, gradient.log_lam * _reciprocal(lam.conj()))
    by_lam = np.sum(V.conj() * (by_A @ W.conj().T), axis=0)
    return PerEntry(by_lam * lam_r.conj(), V.conj().T @ gradient.B, gradient.C @ W.conj().T)


def pull_back_squares(squares: PerEntry, lti: DiagonalLTI, V: V_, W: W_) -> PerEntry:
    """`pull_back` for squares, by the squares of its coefficients.

    That is the expected square if the gradients of different entries are uncorrelated.
    """
    lam, lam_r = _eigenvalues(lti, V, W)
    couple = _couplings(lti, RESOLUTION_OF_SQUARES)
    B, C = np.asarray(lti.B), np.asarray(lti.C)
    direct = V * W.T * _reciprocal(lam)[:, None] * lam_r
    by_log_lam = np.sum(_squared(direct.conj(), squares.log_lam[:, None]), axis=0)
    for k, (v, w) in enumerate(zip(V.T, W, strict=True)):
        by_B = lam_r[k] * v[:, None] * ((couple * w) @ B)
        by_C = lam_r[k] * (C @ (couple * v[:, None])) * w
        by_log_lam[k] += np.sum(_squared(by_B.conj(), squares.B))
        by_log_lam[k] += np.sum(_squared(by_C.conj(), squares.C))
    return PerEntry(
        by_log_lam,
        _squared_product(V.conj().T, squares.B),
        _squared_product(W.conj(), squares.C.T).T,
    )


RESOLUTION = 1e-2
"""X is damped, as Tikhonov would, between eigenvalues closer than this share of their distance from
the circle: over the length of their memory they are one, and X would be made of rounding."""

RESOLUTION_OF_SQUARES = 1.0
"""The same for squares, where gradients of eigenvalues that close are anything but uncorrelated."""


def _eigenvalues(lti: DiagonalLTI, V: V_, W: W_):
    lam = np.exp(np.asarray(lti.log_lam))
    return lam, np.sum(W.T * (lam[:, None] * V), axis=0)


def _couplings(lti: DiagonalLTI, resolution: float) -> Complex[np.ndarray, "n n"]:
    """1 / (lam_j - lam_i), damped, and zero on the diagonal."""
    log_lam = np.asarray(lti.log_lam)
    gap = np.exp(log_lam)[None, :] - np.exp(log_lam)[:, None]
    distance = -np.expm1(np.real(log_lam))
    damping = resolution**2 * distance[None, :] * distance[:, None]
    couple = gap.conj() / (np.abs(gap) ** 2 + damping)
    np.fill_diagonal(couple, 0)
    return couple


def _reciprocal(lam: Complex[np.ndarray, " n"]) -> Complex[np.ndarray, " n"]:
    """1 / lam, but zero for states that forget at once: nothing depends on their eigenvalue."""
    return lam.conj() / (np.abs(lam) ** 2 + 1e-12)


def _squared(a, squares):
    """The squares of a * g, from those of g."""
    re, im = a.real**2, a.imag**2
    return re * squares.real + im * squares.imag + 1j * (re * squares.imag + im * squares.real)


def _squared_product(A, squares):
    """The squares of A @ g, from those of g."""
    re, im = A.real**2, A.imag**2
    return re @ squares.real + im @ squares.imag + 1j * (re @ squares.imag + im @ squares.real)
