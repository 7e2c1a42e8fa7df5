"""The reduced system whose outputs are nearest to a system's on white noise: H2-optimal reduction.

Balanced truncation bounds the largest gain of the error; the nearest system in the H2 norm has the
least mean square of it. There is no formula for it, but a descent: for fixed eigenvalues and B the
best C is a least-squares solution, and the derivative of what then remains is in closed form, since
with <a, b> = sum_k tr(h_a,k^T h_b,k), h the impulse responses,

    J = <f - r, f - r>,    dJ = -2 <f - r, dr>.

A state whose two parts nearly undo one another is no use to a layer that is trained on in single
precision, so the size of each state by itself has a price (`PRICE`). Where the descent ends, the
reduced system is a projection of the full one (Wilson 1970), with

    V = E[x z^H] E[z z^H]^-1

of the states x and z under white noise, and W^T the same of the dual systems; optimizer moments
follow a cut through that. For diagonal state-space layers: Sakamoto & Sato, arXiv 2507.10078.
"""

from operator import itemgetter

import numpy as np
import scipy
from jaxtyping import Complex

from zoo import DiagonalLTI
from zoo.typing import checked

from ..numerics.threads import one_blas_thread
from .balance import Truncation, balanced_truncation, gramian_factors
from .data_gramians import white_moments
from .hankel import check_pair
from .jacobian import PerEntry
from .modal import MIN_LOG_MODULUS, double_arrays, stored
from .refit import RESOLUTION, least_squares
from .two_sided import two_sided, without_real_modes

ROUNDS = 12
"""Descents, at most: each starts from the last one's end, in variables scaled anew."""

STEPS = 100
"""Steps of a descent, at most."""

STALLED = 1e-8
"""Share of what remained at its start below which a step's gain ends a descent."""

GAIN = 1e-3
"""Share of the error that a descent must take away for another one to follow."""

PRICE = 1e-3
"""Added to J: the sum of |c_j|^2 |b_j|^2 / (1 - |lam_j|^2) over the states, as a share of <f, f>,
times this share of the J at the start."""

NOTHING = 1e-7
"""Share of the norm below which an error is rounding: <f - r, f - r> is a difference."""


@checked
def optimal_reduction(lti: DiagonalLTI, rank: int) -> Truncation:
    """A system of `rank` stored states near `lti` in the H2 norm of the real map y = Re(C x).

    Descents from the balanced truncation, and from where the two-sided iteration ends, to local
    minima, of which the lowest counts: never worse than the truncation, and stable.
    `bound` is infinite, there is none for it. `sigma` are those of the real map, and `order` is
    2 `rank`; V and W are those of the module, W scaled so that the projection is one. Where the
    truncation is exact already, it is returned itself.

    Raises ValueError as `balanced_truncation`.
    """
    return nearest(lti, balanced_truncation(lti, rank))


def nearest(lti: DiagonalLTI, start: Truncation) -> Truncation:
    """`optimal_reduction` from another reduction of the real map to begin with."""
    full = double_arrays(lti)
    norm = inner(full, full)[0]
    error = h2_error(lti, start.lti)
    if start.rank >= lti.d_state or error <= NOTHING * np.sqrt(norm):
        return start
    with one_blas_thread():
        reduced = without_real_modes(double_arrays(start.lti))
        projected = two_sided(full, reduced)
        starts = [reduced] if projected is None else [reduced, projected]
        price = PRICE * error**2 / norm
        ends = [_lowest(full, norm, begin, price) for begin in starts]
        best = min(ends, key=itemgetter(1))[0]
        found = _as_truncation(lti, _upper_half(best), start)
        return found if h2_error(lti, found.lti) < error else start


def _lowest(full, norm: float, reduced, price: float):
    """Where descents one after the other end, and what remains there as a share of `norm`."""
    remains = np.inf
    for _ in range(ROUNDS):
        before, (reduced, remains) = remains, _descend(full, norm, reduced, price)
        if np.sqrt(remains) > (1 - GAIN) * np.sqrt(before):
            break
    return reduced, remains


@checked
def h2_error(lti: DiagonalLTI, reduced: DiagonalLTI) -> float:
    """The H2 norm of the difference of two real maps, D apart.

    That is the root of the mean square of the difference of their outputs on white noise, summed
    over outputs: |Re(C L)| in the Frobenius norm, P = L L^H the Gramian of the difference, a system
    of its own. Nothing is subtracted but the outputs themselves, so that an error keeps its digits
    down to about 1e-15 of the norms.

    Raises ValueError if the systems do not fit, hold NaN or infinity, or are not stable.
    """
    check_pair(lti, reduced, "lti", "reduced")
    log_lam, B, C = _difference(double_arrays(lti), double_arrays(reduced))
    D = np.zeros((C.shape[0], B.shape[1]))
    L, _ = gramian_factors(DiagonalLTI(log_lam, B, C, D), "real")
    with one_blas_thread():
        return float(np.linalg.norm(np.real(C @ L)))


def inner(a, b) -> tuple[float, PerEntry]:
    """<a, b> of two systems (log_lam, B, C), and its gradient by `b`."""
    (log_a, B_a, C_a), (log_b, B_b, C_b) = a, b
    by_b = PerEntry(*(np.zeros_like(x) for x in b))
    for log_lam, B, C in ((log_a.conj(), B_a.conj(), C_a.conj()), (log_a, B_a, C_a)):
        sums = -1 / np.expm1(log_lam[:, None] + log_b)
        into, out = (B @ B_b.T) * sums, (C.T @ C_b) * sums
        by_lam = np.sum(into * out * (1 - 1 / sums), axis=0)
        by_b = PerEntry(by_b.log_lam + by_lam, by_b.B + out.T @ B, by_b.C + C @ into)
    by_b = PerEntry(*(x.conj() / 2 for x in by_b))
    return float(np.sum(np.real(by_b.C.conj() * C_b))), by_b


def _descend(full, norm: float, start, price: float):
    """Where a descent from `start` ends, and what remains, price included, as a share of `norm`.

    Steps are judged by shares of what remains at the start: errors may be small. Variables are the
    logarithms of the decays, the angles in units of the decay, and B, with rows of length one; C is
    the best one.
    """
    log_lam, B, _ = start
    B = B / np.linalg.norm(B, axis=1, keepdims=True)
    r, decay = len(B), -log_lam.real

    def reduced(x):
        by_decay, by_angle, re, im = np.split(x, [r, 2 * r, 2 * r + B.size])
        now = -decay * np.exp(by_decay) + 1j * (log_lam.imag + decay * by_angle)
        return _with_best_C(full, now, (re + 1j * im).reshape(B.shape), price)

    def remains(x):
        now, explained = reduced(x)
        by, by_size = inner(_difference(now, full), now)[1], _by_size(now)
        by_lam = by.log_lam + price * by_size.log_lam
        by_B = by.B + price * by_size.B
        by_decay, by_angle = np.real(by_lam) * np.real(now[0]), np.imag(by_lam) * decay
        gradient = 2 * np.concatenate([by_decay, by_angle, *_parts(by_B)])
        return (1 - explained / norm) / unit, gradient / norm / unit

    unit = 1.0
    begin = np.concatenate([np.zeros(2 * r), *_parts(B)])
    unit = max(remains(begin)[0], np.finfo(float).eps)
    free = [(None, None)] * (r + 2 * B.size)
    found = scipy.optimize.minimize(
        remains,
        begin,
        jac=True,
        method="L-BFGS-B",
        bounds=[*((None, most) for most in np.log(-MIN_LOG_MODULUS / decay)), *free],
        options={"maxiter": STEPS, "maxcor": 30, "ftol": STALLED, "gtol": 1e-8},
    )
    return reduced(found.x)[0], max(0.0, float(found.fun) * unit)


def _parts(z):
    return np.real(z).ravel(), np.imag(z).ravel()


def _with_best_C(full, log_lam, B, price: float):
    """The system of these eigenvalues and inputs with the C that is best, and <f, r> of it."""
    r = len(B)
    to_C = inner(full, (log_lam, B, np.zeros((len(full[2]), r), complex)))[1].C
    both = np.concatenate([np.real(to_C), -np.imag(to_C)], axis=1)
    of_states = np.diag(np.tile(price * _sizes(log_lam, B), 2))
    C = least_squares(white_moments(log_lam, B) + of_states, both)
    return (log_lam, B, C[:, :r] - 1j * C[:, r:]), float(np.sum(both * C))


def _by_size(system) -> PerEntry:
    """Half of the gradient of what has a price."""
    log_lam, B, C = system
    of_B, of_C = _sizes(log_lam, B), _sizes(log_lam, C.T)
    growth = -np.exp(2 * np.real(log_lam)) / np.expm1(2 * np.real(log_lam))
    by_lam = np.sum(np.abs(B) ** 2, axis=1) * of_C * growth
    return PerEntry(by_lam + 0j, of_C[:, None] * B, C * of_B)


def _sizes(log_lam, B):
    """The mean squares of the states on white noise."""
    return np.sum(np.abs(B) ** 2, axis=1) / -np.expm1(2 * np.real(log_lam))


def _difference(a, b):
    """The system a - b."""
    (log_a, B_a, C_a), (log_b, B_b, C_b) = a, b
    parts = (log_a, log_b), (B_a, B_b), (C_a.T, -C_b.T)
    log_lam, B, C = (np.concatenate(pair) for pair in parts)
    return log_lam, B, C.T


def _upper_half(system):
    """The same real map with angles in [0, pi], the others' states conjugate."""
    log_lam, B, C = system
    angle = np.angle(np.exp(1j * log_lam.imag))
    below = angle < 0
    return (
        log_lam.real + 1j * np.abs(angle),
        np.where(below[:, None], B.conj(), B),
        np.where(below, C.conj(), C),
    )


def _as_truncation(lti: DiagonalLTI, system, start: Truncation) -> Truncation:
    full = double_arrays(lti)
    reduced, scale = stored(lti, *system)
    V, V_conj = _regression(full, system)
    dual, dual_conj = _regression(_dual(full), _dual(system))
    hat = np.block([[V, V_conj], [V_conj.conj(), V.conj()]])
    hat_of_dual = np.block([[dual, dual_conj], [dual_conj.conj(), dual.conj()]]).T
    inverse = np.linalg.pinv(hat_of_dual @ hat, rcond=RESOLUTION)
    W, W_conj = np.split((inverse @ hat_of_dual)[: len(system[0])], 2, axis=1)
    return Truncation(
        lti=reduced,
        V=V * scale,
        W=W / scale[:, None],
        V_conj=V_conj * scale,
        W_conj=W_conj / scale[:, None],
        sigma=start.sigma,
        bound=float("inf"),
        rank=len(system[0]),
        order=2 * len(system[0]),
        radius=float(np.exp(np.max(system[0].real))),
    )


def _regression(full, reduced) -> tuple[Complex[np.ndarray, "n r"], Complex[np.ndarray, "n r"]]:
    """V and V_conj such that V z + V_conj z* is nearest to the states of `full` on white noise."""
    n, r = len(full[1]), len(reduced[1])
    log_lam, B = (np.concatenate(pair) for pair in zip(full[:2], reduced[:2], strict=True))
    moments = white_moments(log_lam, B)
    x_re, z_re, x_im, z_im = np.split(np.arange(2 * (n + r)), np.cumsum([n, r, n]))
    z = np.concatenate([z_re, z_im])
    on_parts = moments[x_re][:, z] + 1j * moments[x_im][:, z]
    by_re, by_im = np.split(least_squares(moments[z][:, z], on_parts), 2, axis=1)
    return (by_re - 1j * by_im) / 2, (by_re + 1j * by_im) / 2


def _dual(system):
    log_lam, B, C = system
    return log_lam, C.T, B.T
