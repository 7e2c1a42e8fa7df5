"""The lift of a change of a reduced system to the full one, and its adjoint for gradients.

The reduced system is lam_r, B_r = W B, C_r = C V. The lift takes a change of it to the change
dA = V diag(dlam_r) W, dB = V dB_r, dC = dC_r W of the full system, which is then made diagonal
again to first order, with X_ij = dA_ij / (lam_j - lam_i) off the diagonal:

    dlam_i = dA_ii,    dB <- dB - X B,    dC <- dC + C X.

A gradient goes the other way, through the adjoint. Gradients are those of `PerEntry`. A reduction
of the real map mixes states with their conjugates; there dA, X, V and W are matrices of the doubled
system, whose two blocks of rows are conjugates of each other.

Where states share an eigenvalue, no X takes dA_ij away: the block itself is the first-order change.
The gradient G_ij by its entries is not among the gradients by a diagonal system, but the transfer
function C (zI - A)^-1 B changes by C_i dA_ij B_j / (z - lam)^2, so with one matrix M for the block

    G_ij = C_i^H M B_j^H,    of which G_ii, the gradients by the eigenvalues, are known.

M is the smallest that has these G_ii (`compress.linear.degenerate`).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex

from zoo import DiagonalLTI

from .degenerate import Block, blocks
from .jacobian import PerEntry
from .modal import REAL_MODE_PHASE


@dataclass(frozen=True)
class Projection:
    """The relation of the states x of a full system and x_r of a reduced one.

    x is near V x_r + V_conj conj(x_r), and x_r = W x + W_conj conj(x). The reduction of the complex
    system has zeros for the last two.
    """

    log_lam: Complex[np.ndarray, " r"]
    """Of the reduced system."""
    V: Complex[np.ndarray, "n r"]
    W: Complex[np.ndarray, "r n"]
    V_conj: Complex[np.ndarray, "n r"] | None = None
    W_conj: Complex[np.ndarray, "r n"] | None = None


def real_basis(
    projection: Projection,
) -> tuple[Complex[np.ndarray, "n k"], Complex[np.ndarray, "k n"]]:
    """V and W of the real coordinates xi = 2 Re(W x), x near V xi, of a reduction of the real map.

    Those of a pair are the real and the imaginary part of its state; of a real mode, its state,
    turned back (`compress.linear.modal`).
    """
    V, W, V_conj, W_conj = projection.V, projection.W, projection.V_conj, projection.W_conj
    if V_conj is None or W_conj is None:
        raise ValueError("`projection` must be one of the real map, got one whose V_conj is None")
    real = is_real(projection.log_lam)
    columns = np.where(real, 2 * turn(real) * V, V + V_conj), 1j * (V - V_conj)[:, ~real]
    rows = np.where(real[:, None], turn(real).conj()[:, None] * W, (W + W_conj.conj()) / 2)
    return (
        np.concatenate(columns, axis=1),
        np.concatenate([rows, ((W - W_conj.conj()) / 2j)[~real]]),
    )


def is_real(log_lam: Complex[np.ndarray, " r"]):
    """Mask of the states that are real modes."""
    return np.isin(np.imag(log_lam), (0.0, np.pi))


def turn(real) -> Complex[np.ndarray, " r"]:
    """The phase of the states: that of real modes is `REAL_MODE_PHASE`."""
    return np.where(real, np.exp(1j * REAL_MODE_PHASE), 1)


def pull_back(gradient: PerEntry, lti: DiagonalLTI, projection: Projection) -> PerEntry:
    """The gradient by the reduced system, from that by the full one, `lti`.

    Exact when nothing is lost (r = n); close as long as C (zI - A)^-1 V is close to its reduced
    counterpart, which is what truncation aims at.
    """
    V, W, V2, W2 = projection.V, projection.W, projection.V_conj, projection.W_conj
    B, C = np.asarray(lti.B), np.asarray(lti.C)
    lam, lam_r = np.exp(np.asarray(lti.log_lam)), np.exp(projection.log_lam)
    by_A = _couplings(lam, lam, RESOLUTION).conj()
    by_A *= C.conj().T @ gradient.C - gradient.B @ B.conj().T
    by_A_conj = np.zeros_like(by_A)
    if V2 is not None:
        by_A_conj = _couplings(lam, lam.conj(), RESOLUTION).conj()
        by_A_conj *= C.conj().T @ gradient.C.conj() - gradient.B @ B.T
    by_lam_full = gradient.log_lam * _reciprocal(lam.conj())
    for block in _shared(lam, B, C, doubled=V2 is not None):
        block.add_to(by_A, by_A_conj, by_lam_full)
    np.fill_diagonal(by_A, by_lam_full)
    by_lam = _diagonal(V.conj().T, by_A, W.conj().T)
    by_B, by_C = V.conj().T @ gradient.B, gradient.C @ W.conj().T
    if V2 is not None and W2 is not None:
        by_lam += _diagonal(V2.conj().T, by_A, W2.T).conj()
        by_lam += _diagonal(V.conj().T, by_A_conj, W2.conj().T)
        by_lam += _diagonal(V2.conj().T, by_A_conj, W.T).conj()
        by_B, by_C = by_B + V2.T @ gradient.B.conj(), by_C + gradient.C.conj() @ W2.conj().T
    return PerEntry(by_lam * lam_r.conj(), by_B, by_C)


def pull_back_squares(squares: PerEntry, lti: DiagonalLTI, projection: Projection) -> PerEntry:
    """`pull_back` for squares, by the squares of its coefficients.

    That is the expected square if the gradients of different entries are uncorrelated. The way
    from B and C to the eigenvalues is summed over `CHANNELS` mixed channels where there are more.
    """
    V, W, V2, W2 = projection.V, projection.W, projection.V_conj, projection.W_conj
    B, C = np.asarray(lti.B), np.asarray(lti.C)
    lam, lam_r = np.exp(np.asarray(lti.log_lam)), np.exp(projection.log_lam)
    K, K_conj = (_couplings(lam, x, RESOLUTION_OF_SQUARES) for x in (lam, lam.conj()))
    by_log_lam = np.zeros(lam_r.shape, complex)
    B, by_B = _mixed(B, squares.B)
    C, by_C = (x.T for x in _mixed(C.T, squares.C.T))
    mixed = PerEntry(squares.log_lam, by_B, by_C)
    shared = _shared(lam, np.asarray(lti.B), np.asarray(lti.C), doubled=V2 is not None)
    for k, (v, w) in enumerate(zip(V.T, W, strict=True)):
        # dlog_lam = a dlog_lam_r + b conj(dlog_lam_r) in (log_lam, B, C)
        a = v * w, v[:, None] * (K @ (w[:, None] * B)), ((C * v) @ K) * w
        b = None, None, None
        if V2 is None or W2 is None:
            a = _shares(v, w, shared) * _reciprocal(lam), *a[1:]
        else:
            v2, w2 = V2[:, k], W2[k]
            share = _shares(v, np.concatenate([w, w2]), shared)
            share_conj = _shares(v2, np.concatenate([w2, w]).conj(), shared)
            a = (
                (share[: len(v)] + share_conj[len(v) :].conj()) * _reciprocal(lam),
                a[1] + v[:, None] * (K_conj @ (w2[:, None] * B.conj())),
                a[2] + ((C * v2) @ K_conj).conj() * w,
            )
            b = (
                (share_conj[: len(v)] + share[len(v) :].conj()) * _reciprocal(lam),
                v2[:, None] * (K @ (w2[:, None].conj() * B) + K_conj @ (w[:, None] * B).conj()),
                ((C * v2) @ K + ((C * v) @ K_conj).conj()) * w2.conj(),
            )
        for on_x, on_conj, square in zip(a, b, mixed, strict=True):
            on_conj = None if on_conj is None else on_conj * lam_r[k].conj()
            by_log_lam[k] += np.sum(_squares(np.multiply, on_x * lam_r[k], on_conj, square))
    return PerEntry(
        by_log_lam,
        _squares(np.matmul, V.T, None if V2 is None else V2.T, squares.B),
        _squares(np.matmul, W, None if W2 is None else W2.conj(), squares.C.T).T,
    )


RESOLUTION = 1e-2
"""X has a Tikhonov damping between eigenvalues closer than this share of their distance from the
circle. Such eigenvalues are indistinguishable over the length of their memory, and X would be
mostly rounding."""

RESOLUTION_OF_SQUARES = 1.0
"""The same for squares, since gradients of such close eigenvalues are strongly correlated."""


CHANNELS = 64
"""Mixed channels: the sums over them scatter by sqrt(2 / 64) = 18 % about those over all."""


def _mixed(matrix, squares):
    """`matrix` [n m] with its columns mixed into `CHANNELS`, and squares [n CHANNELS] for them.

    Squares are taken to be a product of one for each row and one for each column, as Adafactor
    does. Signs in the mixture are random, so sums of squares over channels are right on average.
    """
    m = matrix.shape[1]
    if m <= CHANNELS:
        return matrix, squares
    column = np.sum(squares.real + squares.imag, axis=0)
    column /= max(float(np.sum(column)), np.finfo(float).tiny)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (m, CHANNELS))
    mixture = np.sqrt(column / CHANNELS)[:, None] * signs
    return matrix @ mixture, np.repeat(np.sum(squares, axis=1)[:, None], CHANNELS, axis=1)


def _shared(lam, B, C, *, doubled: bool) -> list[Block]:
    """The blocks of states whose eigenvalues `RESOLUTION` makes one, if `doubled` of the doubled
    system, where a real eigenvalue is also that of the state's conjugate."""
    if doubled:
        lam = np.concatenate([lam, lam.conj()])
        B, C = np.concatenate([B, B.conj()]), np.concatenate([C, C.conj()], axis=1)
    distance = 1 - np.abs(lam)
    gap = np.abs(lam[None, :] - lam[:, None])
    near = gap < RESOLUTION * np.sqrt(distance[None, :] * distance[:, None])
    return blocks(near | (gap == 0), B, C)


def _shares(v, w, shared: list[Block]) -> Complex[np.ndarray, " k"]:
    """The share of each eigenvalue's change in that of a reduced state; for gradients, the
    coefficients of the adjoint.

    Of the reduced state, `v` is the column of V, zero for conjugates, and `w` the row of W.
    """
    v = np.concatenate([v, np.zeros(len(w) - len(v))])
    shares = v * w
    for block in shared:
        shares[block.states] += block.shares(v[block.states], w[block.states])
    return shares


def _couplings(lam, other, resolution: float) -> Complex[np.ndarray, "n n"]:
    """1 / (other_j - lam_i), damped, and zero on the diagonal of lam with itself."""
    gap = other[None, :] - lam[:, None]
    distance = 1 - np.abs(lam)
    damping = resolution**2 * distance[None, :] * distance[:, None]
    size = np.abs(gap) ** 2 + damping
    return gap.conj() / np.where(size > 0, size, 1)


def _diagonal(A, B, C):
    """The diagonal of A B C."""
    return np.sum(A * (B @ C).T, axis=1)


def _reciprocal(lam: Complex[np.ndarray, " n"]) -> Complex[np.ndarray, " n"]:
    """1 / lam, but zero for states without memory: nothing depends on their eigenvalue."""
    return lam.conj() / (np.abs(lam) ** 2 + 1e-12)


def _squares(product, a, b, squares):
    """The squares of conj(a) g + b conj(g), from those of g; `product` is * or @."""
    b = np.zeros(()) if b is None else b
    from_re, from_im = (a + b).real ** 2, (a.imag + b.imag) ** 2
    re = product(from_re, squares.real) + product(from_im, squares.imag)
    from_re, from_im = (b.imag - a.imag) ** 2, (a.real - b.real) ** 2
    return re + 1j * (product(from_re, squares.real) + product(from_im, squares.imag))
