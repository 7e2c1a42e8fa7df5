"""Balanced truncation of a diagonal system by the square root method.

Moore (1981) for the idea; Laub, Heath, Paige & Ward (1987) and Tombs & Postlethwaite (1987) for
the square root method: with P = Lp Lp^H, Q = Lq Lq^H and U S Vh = svd(Lq^H Lp), the projection is
V = Lp Vh^H S^-1/2, W = S^-1/2 U^H Lq^H. Nothing is inverted and nothing is regularised.
"""

import equinox as eqx
import jax
import numpy as np
import scipy.linalg
from beartype import beartype
from jaxtyping import Complex, Float, jaxtyped

from zoo import DiagonalLTI

from .hankel import balanced_factors, check_system, error_bound
from .precision import narrow_array

__all__ = ["Truncation", "balanced_truncation", "check_system", "project"]


FACTOR_TOLERANCE = 1e-32
"""Where the Gramians' factors stop: their square roots, the HSVs, are then below 1e-16."""


class Truncation(eqx.Module):
    """A reduced system and how it came about.

    `lti` is diagonal again, of `rank` states and in the precision of the full one. In its own
    coordinates W V = I, W diag(lam) V = diag(lam_r), W B = B_r and C V = C_r: a full state x is
    near V x_r, and x_r = W x. `sigma` holds all Hankel singular values, `bound` is
    2 * sum(sigma[rank:]), never below the H-infinity error.
    """

    lti: DiagonalLTI
    V: Complex[np.ndarray, "n r"]
    W: Complex[np.ndarray, "r n"]
    sigma: Float[np.ndarray, " n"]
    bound: float
    rank: int


@jaxtyped(typechecker=beartype)
def balanced_truncation(
    lti: DiagonalLTI, rank: int, *, tolerance: float = FACTOR_TOLERANCE
) -> Truncation:
    """The balanced truncation of the complex system (lam, B, C) to `rank` states.

    sigma[rank] <= H-infinity error <= 2 * sum(sigma[rank:]), and the result is stable. States that
    only rounding tells from unreachable or unobservable ones do not come back: a larger rank
    than the number of sigma above n eps sigma[0] (but at least 1) is lowered to it. Only
    `rank` >= n returns the system itself, with V = W = I. D is kept.

    The Gramians' factors stop where what remains is below `tolerance` times their largest
    diagonal entry, so the time is proportional to n (m + p) times the numerical rank; `sigma` is
    zero beyond it. Computed in double precision on the host for each rank, so another rank
    compiles nothing.

    Raises ValueError if `rank` < 1 or `lti` holds NaN or infinity or is not stable.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}, allowed: 1 or more")
    check_system(lti)
    n = lti.d_state
    Lp, Lq = gramian_factors(lti, tolerance)
    M = Lq.conj().T @ Lp
    sigma = np.zeros(n)
    sigma[: min(M.shape)] = scipy.linalg.svd(M, compute_uv=False, check_finite=False)
    if rank >= n:
        eye = np.eye(n, dtype=np.complex128)
        return Truncation(lti, eye, eye, sigma, 0.0, n)
    rank = min(rank, int(np.sum(sigma > n * np.finfo(float).eps * sigma[0])))
    if rank == 0:
        V, W = _one_state(lti)
        rank = 1
    else:
        V, W = _projection(Lp, Lq, M, sigma[:rank])
    reduced, V, W = project(lti, V, W)
    return Truncation(reduced, V, W, sigma, float(error_bound(sigma, rank)), rank)


@jaxtyped(typechecker=beartype)
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
    log_lam, B, C = (np.asarray(x).astype(np.complex128) for x in (lti.log_lam, lti.B, lti.C))
    # lam = 1 + expm1(log_lam): next to 1 the sum W (lam - 1) V keeps digits that W lam V loses
    shifted = (W * np.expm1(log_lam)) @ V
    eps = float(np.finfo(np.asarray(lti.B).dtype).eps)
    eigenvalues, X = _eigenvectors(shifted, eps)
    log_lam_r = _log_one_plus(eigenvalues, decay=float(np.min(-log_lam.real)))
    V, W = V @ X, np.linalg.solve(X, W)
    scale = _scale(log_lam_r, W @ B, C @ V, target=_gain_ratio(log_lam, B, C))
    V, W = V * scale, W / scale[:, None]
    reduced = DiagonalLTI(
        log_lam=narrow_array(log_lam_r, lti.log_lam),
        B=narrow_array(W @ B, lti.B),
        C=narrow_array(C @ V, lti.C),
        D=lti.D,
    )
    return reduced, V, W


def gramian_factors(
    lti: DiagonalLTI, tolerance: float
) -> tuple[Complex[np.ndarray, "n k"], Complex[np.ndarray, "n l"]]:
    """Lp and Lq of the complex system without their empty columns, in double precision."""
    with jax.enable_x64(True):
        Lp, rank_p, Lq, rank_q, scale = (
            np.asarray(x) for x in _factors_jit(tolerance, lti.log_lam, lti.B, lti.C)
        )
    return Lp[:, :rank_p] * scale[:, None], Lq[:, :rank_q] / scale[:, None]


def _factors(tolerance, log_lam, B, C):
    return balanced_factors("complex", log_lam, B, C, tolerance)


_factors_jit = jax.jit(_factors, static_argnums=0)


def _projection(Lp, Lq, M, sigma):
    """V and W from the leading singular vectors of M = Lq^H Lp.

    Where sigma has fallen far, the QR iteration (gesvd) is worth its time: it leaves W V = I with
    13 digits, where divide and conquer (gesdd) mixes eps sigma_1 / sigma_r of the first vectors
    into the last (seen: 2e-6 at sigma_r = 1e-12 sigma_1).
    """
    steep = sigma[-1] < STEEP * sigma[0]
    U, _, Vh = scipy.linalg.svd(
        M, full_matrices=False, check_finite=False, lapack_driver="gesvd" if steep else "gesdd"
    )
    rank, root = sigma.size, np.sqrt(sigma)
    V = (Lp @ Vh[:rank].conj().T) / root
    W = ((Lq @ U[:, :rank]) / root).conj().T
    return V, W


def _one_state(lti: DiagonalLTI):
    """V and W that keep one state, the heaviest, of a system whose output is always zero."""
    B, C = np.asarray(lti.B), np.asarray(lti.C)
    weight = np.sum(np.abs(B) ** 2, axis=1) + np.sum(np.abs(C) ** 2, axis=0)
    V = np.zeros((lti.d_state, 1), np.complex128)
    V[np.argmax(weight)] = 1
    return V, V.T.copy()


def _eigenvectors(A, eps: float):
    """Eigenvalues and eigenvectors of A, or of a matrix near A that has better ones.

    The modal form of a (nearly) defective matrix has large residues that cancel: with
    eigenvectors of condition k, storing it with rounding `eps` moves the system by about eps k.
    Moving A by delta |A| first lowers k. Of a few deltas the one with the least delta + eps k is
    taken, 0 unless k is large.
    """
    values, X = np.linalg.eig(A)
    condition = np.linalg.cond(X)
    if condition < ILL_CONDITIONED:
        return values, X
    best = eps * condition
    direction = np.random.default_rng(0).standard_normal(A.shape) / np.sqrt(A.shape[0])
    for delta in eps ** np.linspace(0.9, 0.4, 6):
        near = np.linalg.eig(A + delta * np.linalg.norm(A, 2) * direction)
        cost = float(delta + eps * np.linalg.cond(near.eigenvectors))
        if cost < best:
            best, (values, X) = cost, near
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


STEEP = 1e-6
"""sigma_r / sigma_1 below which the singular vectors are computed by QR iteration."""

ILL_CONDITIONED = 1e3
"""Condition of the eigenvectors above which a nearby matrix is looked for."""

MIN_LOG_MODULUS = -30.0
"""Least log|lam| of a reduced system: an eigenvalue of zero has no logarithm."""
