"""Diagonalisation of projected systems. Layers of the zoo are diagonal, but their projections are
not: the matrix W diag(lam) V is diagonalised here, with special treatment of eigenvalues and
eigenvectors that a diagonal layer cannot have.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from zoo import DiagonalLTI
from zoo.typing import checked

from ..numerics.precision import narrow_array


class Projected(NamedTuple):
    """A reduced system z, with x near V z + V_conj z* and z = W x + W_conj x* for the full x."""

    lti: DiagonalLTI
    V: Complex[np.ndarray, "n r"]
    W: Complex[np.ndarray, "r n"]
    V_conj: Complex[np.ndarray, "n r"]
    W_conj: Complex[np.ndarray, "r n"]
    radius: float
    """Largest modulus of an eigenvalue, before those past the unit circle were moved inside."""


@checked
def project(
    lti: DiagonalLTI, V: Complex[np.ndarray, "n r"], W: Complex[np.ndarray, "r n"]
) -> tuple[DiagonalLTI, Complex[np.ndarray, "n r"], Complex[np.ndarray, "r n"]]:
    """The system W diag(lam) V, W B, C V (where W V = I), diagonal again; and V, W to match.

    Eigenvalues lie in -pi < angle <= pi, real negative ones at +pi. Those of modulus below
    exp(MIN_LOG_MODULUS), zero among them, come back with this modulus; those that rounding has put
    on the unit circle or past it with the modulus of the full system's slowest state.
    A nearly defective matrix is moved as far (see `_eigenvectors`) as its eigenvectors gain by
    it. Each state is scaled so that |c_i| sqrt(1 - |lam_i|^2) / |b_i| is the full system's
    (geometric mean).
    """
    return project_complex(lti, V, W)[:3]


@checked
def project_complex(
    lti: DiagonalLTI,
    V: Complex[np.ndarray, "n r"],
    W: Complex[np.ndarray, "r n"],
    rounding: float | None = None,
) -> Projected:
    """`project` as a `Truncation`; V_conj and W_conj are zero.

    `rounding` is that of the parameters in which the result is stored (None: that of `lti`).
    """
    log_lam, _, _ = double_arrays(lti)
    values, X = _eigenvectors((W * np.expm1(log_lam)) @ V, rounding or _rounding(lti))
    V, W = V @ X, np.linalg.solve(X, W)
    return _finish(lti, values, V, W, np.zeros_like(V), np.zeros_like(W))


@checked
def project_real(
    lti: DiagonalLTI,
    V: Complex[np.ndarray, "n k"],
    W: Complex[np.ndarray, "k n"],
    rounding: float | None = None,
) -> Projected:
    """The same for the real map y = Re(C x) and k real states xi = 2 Re(W x), x near V xi.

    The real matrix 2 Re(W diag(lam) V) has conjugate pairs of eigenvalues, each one stored state,
    and real ones. Stored states z with y = Re(C_r z) hold two real modes only if both have one
    eigenvalue, so each real mode takes a state of its own: r = k - (number of pairs).

    A real mode's b_i is turned by REAL_MODE_PHASE rad and its c_i back, which changes nothing. In
    the phase where both are real their imaginary parts, and with them the angle, have no gradient,
    and no update would ever leave the real line. After the turn, an optimizer that scales entry by
    entry (Adam) moves b_i and c_i off it, and the angle gets a gradient.
    """
    log_lam, _, _ = double_arrays(lti)
    A = 2 * np.real((W * np.expm1(log_lam)) @ V)
    values, X = _eigenvectors(A, rounding or _rounding(lti))
    inverse = np.linalg.inv(X)
    real, upper = np.imag(values) == 0, np.imag(values) > 0
    turn = np.exp(1j * REAL_MODE_PHASE)
    left = np.concatenate([inverse[upper], turn * inverse[real]])
    return _finish(
        lti,
        np.concatenate([values[upper], values[real]]),
        np.concatenate([V @ X[:, upper], V @ X[:, real] / (2 * turn)], axis=1),
        left @ W,
        np.concatenate([V @ X[:, upper].conj(), V @ X[:, real] * (turn / 2)], axis=1),
        left @ W.conj(),
    )


def _finish(lti: DiagonalLTI, values, V, W, V_conj, W_conj) -> Projected:
    """The system of eigenvalues 1 + `values` with this projection, its states scaled."""
    log_lam, B, C = double_arrays(lti)
    log_lam_r = _log_one_plus(values, decay=float(np.min(-log_lam.real)))
    b, c = W @ B + W_conj @ B.conj(), C @ V + (C @ V_conj).conj()
    reduced, scale = stored(lti, log_lam_r, b, c)
    return Projected(
        reduced,
        V * scale,
        W / scale[:, None],
        V_conj * scale,
        W_conj / scale[:, None],
        radius=float(np.max(np.abs(1 + values))),
    )


def stored(
    lti: DiagonalLTI,
    log_lam: Complex[np.ndarray, " r"],
    B: Complex[np.ndarray, "r m"],
    C: Complex[np.ndarray, "p r"],
) -> tuple[DiagonalLTI, Float[np.ndarray, " r"]]:
    """A reduction of `lti` as it is stored: in its precision, its states as `project` scales them.

    And the factors of the columns of V, and of C, that do it.
    """
    scale = _scale(log_lam, B, C, target=_gain_ratio(*double_arrays(lti)))
    reduced = DiagonalLTI(
        log_lam=narrow_array(log_lam, lti.log_lam),
        B=narrow_array(B / scale[:, None], lti.B),
        C=narrow_array(C * scale, lti.C),
        D=lti.D,
    )
    return reduced, scale


def double_arrays(lti: DiagonalLTI):
    """(log_lam, B, C) as NumPy's complex128."""
    return tuple(np.asarray(x).astype(np.complex128) for x in (lti.log_lam, lti.B, lti.C))


def _rounding(lti: DiagonalLTI) -> float:
    return float(np.finfo(np.asarray(lti.B).dtype).eps)


def _eigenvectors(A, eps: float):
    """Values z and vectors of a matrix A whose 1 + z are wanted; or of one near A with better ones.

    (A is W diag(lam - 1) V: next to 1, that sum keeps digits that W diag(lam) V loses.)
    The modal form of a (nearly) defective matrix has large residues that cancel: with
    eigenvectors of condition k, storing it with rounding `eps` moves the system by about eps k.
    Moving A by delta |A| first lowers k. Of a few deltas the one with the least delta + eps k is
    taken, 0 unless k is large. A real matrix stays real.
    """
    values, X = _eig(A)
    condition = np.linalg.cond(X)
    if condition < ILL_CONDITIONED:
        return values, X
    best = eps * condition
    direction = np.random.default_rng(0).standard_normal(A.shape) / np.sqrt(A.shape[0])
    for delta in eps ** np.linspace(0.9, 0.4, 6):
        near = _eig(A + delta * np.linalg.norm(A, 2) * direction)
        cost = float(delta + eps * np.linalg.cond(near[1]))
        if cost < best:
            best, (values, X) = cost, near
    return values, X


def _eig(A) -> tuple[np.ndarray, np.ndarray]:
    values, X = np.linalg.eig(A)
    return values, X


def _log_one_plus(z, decay: float):
    """log(1 + z) with its digits near z = 0, within the moduli that `project` promises."""
    square = z.real * (2 + z.real) + z.imag**2  # |1 + z|^2 - 1
    near = 0.5 * np.log1p(np.maximum(square, -0.5))
    far = np.log(np.maximum(np.abs(1 + z), np.exp(MIN_LOG_MODULUS)))
    log_modulus = np.where(square > -0.5, near, far)
    log_modulus = np.where(log_modulus < 0, log_modulus, -decay)
    angle = np.arctan2(z.imag, 1 + z.real)
    return log_modulus + 1j * np.where(angle == -np.pi, np.pi, angle)


def _gain_ratio(log_lam, B, C) -> float:
    """Geometric mean of |c_i| sqrt(1 - |lam_i|^2) / |b_i| over the states with both."""
    b, c = np.linalg.norm(B, axis=1), np.linalg.norm(C, axis=0)
    both = (b > 0) & (c > 0)
    if not both.any():
        return 1.0
    decay = -np.expm1(2 * log_lam[both].real)
    return float(np.exp(np.mean(np.log(c[both]) + 0.5 * np.log(decay) - np.log(b[both]))))


def _scale(log_lam, B, C, target: float):
    """Factors for the columns of V that give every state the gain ratio `target`."""
    b, c = np.linalg.norm(B, axis=1), np.linalg.norm(C, axis=0)
    both = (b > 0) & (c > 0)
    decay = -np.expm1(2 * log_lam.real)
    ratio = np.where(both, c, 1) * np.sqrt(decay) / np.where(both, b, 1)
    return np.where(both, np.sqrt(target / ratio), 1.0)


MIN_LOG_MODULUS = -30.0
"""Least log|lam| of a reduced system: an eigenvalue of zero has no logarithm."""

ILL_CONDITIONED = 1e3
"""Condition of the eigenvectors above which a nearby matrix is looked for."""

REAL_MODE_PHASE = 0.5
"""Phase [rad] of a real mode's row of B; anything but a multiple of pi/4 would do."""
