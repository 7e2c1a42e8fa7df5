"""Balanced truncation of a diagonal system by the square root method.

Moore (1981) for the idea; Laub, Heath, Paige & Ward (1987) and Tombs & Postlethwaite (1987) for
the square root method: with P = Lp Lp^H, Q = Lq Lq^H and U S Vh = svd(Lq^H Lp), the projection is
V = Lp Vh^H S^-1/2, W = S^-1/2 U^H Lq^H. No Gramian is inverted and nothing is regularised.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
import scipy
from jaxtyping import Complex, Float

from zoo import DiagonalLTI
from zoo.typing import checked

from ..numerics.padding import padded
from ..numerics.threads import one_blas_thread
from .hankel import (
    Form,
    balanced_factor,
    balanced_generators,
    check_system,
    error_bound,
    hankel_matrix,
    rounding_gain,
)
from .modal import double_arrays, project, project_complex, project_real
from .selection import StateChoice

__all__ = ["Truncation", "balanced_truncation", "check_system", "project", "truncate"]

FACTOR_TOLERANCE = 1e-40
"""Tolerance at which the Gramians' factors stop. The omitted part changes no sigma by more than
1e-20 of sqrt(trace(P) trace(Q)), usually far less: the square of it."""


class Truncation(eqx.Module):
    """A reduced system and its projection.

    `lti` is diagonal again, of `rank` stored states and in the precision of the full one. In its
    own coordinates x_r, a full state x is near V x_r + V_conj x_r*, and x_r = W x + W_conj x*.
    For form="complex", V_conj and W_conj are zero, and W V = I, W diag(lam) V = diag(lam_r),
    W B = B_r, C V = C_r. For form="real", B_r = W B + W_conj B* and C_r = C V + (C V_conj)*; W V +
    W_conj V_conj* is the identity, but 1/2 for a real mode, whose x_r and x_r* are one.

    `sigma` holds all Hankel singular values (2n for form="real"), `order` is how many of them are
    kept, and `bound` is 2 * sum(sigma[order:]) + `rounding`, never below the H-infinity error.
    """

    lti: DiagonalLTI
    V: Complex[np.ndarray, "n r"]
    W: Complex[np.ndarray, "r n"]
    V_conj: Complex[np.ndarray, "n r"]
    W_conj: Complex[np.ndarray, "r n"]
    sigma: Float[np.ndarray, " k"]
    bound: float
    rank: int
    order: int
    radius: float
    """Spectral radius of the reduced system, before eigenvalues outside the circle were moved
    inside."""
    rounding: float = 0.0
    """What rounding can add to the error, to first order (`rounding_gain`): that of the numbers of
    `lti` as it is stored, and of the full system's numbers in double precision, in which the
    reduction is computed. It is negligible except for modes next to the unit circle and for large
    modes that cancel."""


@checked
def balanced_truncation(
    lti: DiagonalLTI, rank: int, *, form: Form = "real", tolerance: float = FACTOR_TOLERANCE
) -> Truncation:
    """The balanced truncation of `lti` to `rank` stored states.

    form="complex" truncates the complex system (lam, B, C) to `rank` states. form="real" truncates
    the real map y = Re(C x), of 2n real states, to the largest order whose conjugate pairs and
    real modes fit into `rank` stored ones (see `project_real`): at best 2 `rank`.

    sigma[order] <= H-infinity error <= 2 * sum(sigma[order:]) for this form, up to the rounding
    that `bound` counts in, and the result is stable. A cut between equal sigma moves down to the
    next gap, unless that would cost half of the rank. States that differ from unreachable or
    unobservable ones only by rounding are dropped: the order is at most the number of sigma above k
    eps sigma[0] (k = n or 2n), and at least 1. Only `rank` >= n returns the system itself, with V =
    W = I. D is kept.

    The Gramians' factors stop where what remains is below `tolerance` times their largest diagonal
    entry, so the time is proportional to n (m + p) times the numerical rank; `sigma` is zero beyond
    it. Computed in double precision on the host for each rank, so that another rank needs no
    compilation.

    Raises ValueError if `rank` < 1 or `lti` holds NaN or infinity or is not stable.
    """
    check_system(lti)
    if not 0 <= tolerance < 1:
        raise ValueError(f"`tolerance` must be 0 or more and below 1, got {tolerance}")
    return truncate(lti, *gramian_factors(lti, form, tolerance), rank, form=form)


@checked
def truncate(
    lti: DiagonalLTI,
    Lp: Complex[np.ndarray, "n k"],
    Lq: Complex[np.ndarray, "n l"],
    rank: int,
    *,
    form: Form,
    rounding: float | None = None,
    select: StateChoice | None = None,
    svd: "HankelSVD | None" = None,
) -> Truncation:
    """`balanced_truncation` with factors of any pair of Gramians, say of measured ones.

    form="complex": E[x x^H] = Lp Lp^H, and Lq Lq^H for the outputs. form="real": E[x x^H] = Lp Lp^H
    and E[x x^T] = Lp Lp^T, that is (Re Lp, Im Lp) factors the covariance of (Re x, Im x); Lq the
    same with conj(C^T)/2 for B and conj(lam) for lam. `bound` and stability hold for the system's
    own Gramians only; check `radius`. `rounding` is that of the parameters which the result is
    stored in (None: that of `lti`); it matters for nearly defective results. `select` keeps other
    balanced states of the complex system than the leading ones; `bound` is then twice the sum of
    all sigma that are not kept. `svd` is `hankel_svd(form, Lp, Lq)`, if it has been computed
    before.
    """
    if rank < 1:
        raise ValueError(f"`rank` must be 1 or more, got {rank}")
    if select is not None and form != "complex":
        raise ValueError(f"`form` must be 'complex' where `select` is given, got {form!r}")
    with one_blas_thread():
        svd = hankel_svd(form, Lp, Lq) if svd is None else svd
        return _truncate(lti, Lp, Lq, svd, rank, form, rounding, select)


class HankelSVD(NamedTuple):
    """The singular value decomposition U diag(sigma) Vh of Lq^H Lp, k values for k columns."""

    U: Float[np.ndarray, "l k"] | Complex[np.ndarray, "l k"]
    sigma: Float[np.ndarray, " k"]
    Vh: Float[np.ndarray, "k j"] | Complex[np.ndarray, "k j"]


def hankel_svd(form: Form, Lp: Complex[np.ndarray, "n j"], Lq: Complex[np.ndarray, "n l"]):
    """The decomposition of Lq^H Lp (real for form="real", see `truncate`)."""
    M = hankel_matrix(form, Lp, Lq)
    with one_blas_thread():
        svd = HankelSVD(*scipy.linalg.svd(M, full_matrices=False, check_finite=False))
        if svd.sigma[-1] >= GRADED * svd.sigma[0]:
            return svd
        # without vectors (dqds) the small values keep their digits
        return svd._replace(sigma=scipy.linalg.svdvals(M, check_finite=False))


def _truncate(
    lti: DiagonalLTI,
    Lp,
    Lq,
    svd: HankelSVD,
    rank: int,
    form: Form,
    rounding: float | None,
    select: StateChoice | None,
) -> Truncation:
    n = lti.d_state
    U, _, Vh = svd
    sigma = all_values(form, svd, n)
    if rank >= n:
        eye, zero = np.eye(n, dtype=np.complex128), np.zeros((n, n), np.complex128)
        radius = float(np.exp(np.max(double_arrays(lti)[0].real)))
        return Truncation(lti, eye, eye, zero, zero, sigma, 0.0, n, sigma.size, radius)
    numerical = count_numerical(sigma)
    dropped = None
    if numerical == 0:
        order, reduced = 1, project_complex(lti, *_one_state(lti))
    elif select is not None:
        kept = select(sigma[:numerical], min(rank, numerical))
        basis = _Basis(form, Lp, Lq, U, sigma, Vh, numerical)
        reduced = project_complex(lti, *basis.of(kept), rounding)
        order, dropped = len(kept), 2 * float(np.sum(np.delete(sigma, kept)))
    elif form == "complex":
        order = _above_tie(sigma, min(rank, numerical))
        basis = _Basis(form, Lp, Lq, U, sigma, Vh, order)
        reduced = project_complex(lti, *basis.leading(order), rounding)
    else:
        basis = _Basis(form, Lp, Lq, U, sigma, Vh, min(2 * rank, numerical))
        order = _largest_order(lti, basis, sigma, rank)
        reduced = project_real(lti, *basis.leading(order), rounding)
    stored_in = float(np.finfo(np.asarray(lti.B).dtype).eps)
    double = float(np.finfo(float).eps)
    rounded = rounding_gain(reduced.lti, stored_in) + rounding_gain(lti, double)
    dropped = float(error_bound(sigma, order)) if dropped is None else dropped
    return Truncation(
        lti=reduced.lti,
        V=reduced.V,
        W=reduced.W,
        V_conj=reduced.V_conj,
        W_conj=reduced.W_conj,
        sigma=sigma,
        bound=dropped + rounded,
        rank=reduced.lti.d_state,
        order=order,
        radius=reduced.radius,
        rounding=rounded,
    )


def gramian_factors(
    lti: DiagonalLTI, form: Form = "real", tolerance: float = FACTOR_TOLERANCE
) -> tuple[Complex[np.ndarray, "n k"], Complex[np.ndarray, "n l"]]:
    """Lp and Lq for `truncate`, without their empty columns, in double precision."""
    n = lti.d_state
    log_lam, B, C = double_arrays(lti)
    # States without input and output are never a pivot: rows and columns in use are the system's.
    (log_lam, B), (_, C) = padded(log_lam, B), padded(log_lam, C.T)
    with jax.enable_x64(True):
        of_P, of_Q, scale = _generators_jit(form, log_lam, B, C.T)
    scale = np.asarray(scale)[:n, None]

    def factor(generator):
        with jax.enable_x64(True):
            L, rank = map(np.asarray, _factor_jit(form, tolerance, *generator))
        # one column at least, so that a system whose output is zero needs no other way
        return L[:n, : max(rank, 1)]

    # The recursions are sequences of small steps that leave other cores idle.
    with ThreadPoolExecutor(1) as other:
        observability = other.submit(factor, of_Q)
        return factor(of_P) * scale, observability.result() / scale


_generators_jit = jax.jit(balanced_generators, static_argnums=0)
_factor_jit = jax.jit(balanced_factor, static_argnums=(0, 1))


class _Basis:
    """The balancing bases of the requested number of leading singular vectors."""

    def __init__(self, form: Form, Lp, Lq, U, sigma, Vh, most: int):
        root = np.sqrt(sigma[:most])
        self.V = _times(Lp, Vh[:most].conj().T) / root
        self.W = (_times(Lq, U[:, :most]) / root).conj().T
        product = self.W @ self.V
        self.product = product if form == "complex" else 2 * product.real

    def leading(self, order: int):
        """V and W with W V = I (2 Re(W V) = I for the real form).

        Divide and conquer leaves a share eps sigma_1 / sigma_r of the first vectors in the last
        ones. This is a change of basis within the kept space. A solve with W V, which is close to
        I, undoes it.
        """
        return self.of(np.arange(order))

    def of(self, kept):
        """The same for any choice of the vectors."""
        return self.V[:, kept], np.linalg.solve(self.product[np.ix_(kept, kept)], self.W[kept])


def _times(L, X):
    """L @ X, which takes half of the time if X is real."""
    return L @ X if np.iscomplexobj(X) else L.real @ X + 1j * (L.imag @ X)


def _largest_order(lti: DiagonalLTI, basis: _Basis, sigma, rank: int) -> int:
    """The largest order of the real system whose pairs and real modes fit into `rank` states.

    Two equal real modes are no pair, though rounding may give their eigenvalues imaginary parts.
    """
    most = len(basis.product)
    V, W = basis.leading(most)
    A = 2 * np.real((W * np.expm1(double_arrays(lti)[0])) @ V)
    for order in range(most, 0, -1):
        values: np.ndarray = np.linalg.eigvals(A[:order, :order])
        pairs = np.sum(np.imag(values) > TIE * np.max(np.abs(values)))
        if order - pairs <= rank and _above_tie(sigma, order) == order:
            return order
    return 1


def _above_tie(sigma, order: int) -> int:
    """The largest cut at or below `order` that does not separate equal sigma; `order` if none is
    near."""
    for cut in range(order, order // 2, -1):
        if cut == sigma.size or sigma[cut] < (1 - TIE) * sigma[cut - 1]:
            return cut
    return order


def count_numerical(sigma: Float[np.ndarray, " k"]) -> int:
    """How many of the descending values are above rounding."""
    return int(np.sum(sigma > sigma.size * np.finfo(float).eps * sigma[0]))


def all_values(form: Form, svd: HankelSVD, n: int) -> Float[np.ndarray, " k"]:
    """The values, and zeros up to the n of the complex system, or the 2n of the real map."""
    sigma = np.zeros(n if form == "complex" else 2 * n)
    sigma[: svd.sigma.size] = svd.sigma[: sigma.size]
    return sigma


def _one_state(lti: DiagonalLTI):
    """V and W that keep one state, the largest, of a system whose output is always zero."""
    _, B, C = double_arrays(lti)
    weight = np.sum(np.abs(B) ** 2, axis=1) + np.sum(np.abs(C) ** 2, axis=0)
    V = np.zeros((lti.d_state, 1), np.complex128)
    V[np.argmax(weight)] = 1
    return V, V.T.copy()


GRADED = 1e-4
"""sigma_last / sigma_1 below which the singular values are computed again without vectors."""

TIE = 1e-9
"""Relative difference of sigma, or of eigenvalues, up to which they are equal."""
