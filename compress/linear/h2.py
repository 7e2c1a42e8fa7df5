"""The reduced system whose outputs are nearest to a system's on white noise: H2-optimal reduction.

Balanced truncation bounds the largest gain of the error; the nearest system in the H2 norm has the
least mean square of it. There is no formula for it, but a descent: for fixed eigenvalues and B the
best C is a least-squares solution, and the derivative of what then remains is in closed form, since
with <a, b> = sum_k tr(h_a,k^T h_b,k), h the impulse responses,

    J = <f - r, f - r>,    dJ = -2 <f - r, dr>.

States that nearly cancel are useless in a layer that trains on in single precision, so the
objective has a penalty on the size of each state's own response (`PRICE`). Where the descent ends,
the reduced system is a projection of the full one (Wilson 1970), with

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
"""Most descents in a row: each starts at the end of the last one, with rescaled variables."""

STEPS = 100
"""Most steps of a descent."""

STALLED = 1e-8
"""A descent ends when a step's gain is below this share of the objective at its start."""

GAIN = 1e-3
"""Another descent follows if the last one has reduced the error by this share."""

SAME = 1e-6
"""Relative difference of errors below which two descents count as one."""

FAR = 1.1
"""The last start is given up if its error is above this multiple of the lowest one."""

PRICE = 1e-3
"""Weight of the penalty added to J, the sum of |c_j|^2 |b_j|^2 / (1 - |lam_j|^2) over the states as
a share of <f, f>: this share of J at the start."""

DIGITS = 1e10
"""How far a sum must exceed the rounding of its terms to be taken for the norm's square."""

NOTHING = 1e-7
"""Share of the norm below which an error counts as rounding, since <f - r, f - r> is computed as a
difference."""


@checked
def optimal_reduction(lti: DiagonalLTI, rank: int) -> Truncation:
    """A system of `rank` stored states near `lti` in the H2 norm of the real map y = Re(C x).

    Descents from the balanced truncation, from where the two-sided iteration ends, and from the
    states of `lti` with the most energy, end in local minima, of which the lowest is returned. It
    is stable and never worse than the truncation. `bound` is infinite, since no bound is known.
    `sigma` are those of the real map, and `order` is 2 `rank`; V and W are those of the module, W
    scaled so that the projection is one. If the truncation is exact, it is returned itself.

    Raises ValueError as `balanced_truncation`.
    """
    return nearest(lti, balanced_truncation(lti, rank))


def nearest(lti: DiagonalLTI, start: Truncation) -> Truncation:
    """`optimal_reduction` with another reduction of the real map as its start."""
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
        best = _lowest(full, norm, [*starts, _strongest(full, start.rank)], price)
        found = _as_truncation(lti, _upper_half(best), start)
        return found if h2_error(lti, found.lti) < error else start


def _lowest(full, norm: float, starts, price: float):
    """The best end of the descents from all `starts`. The starts advance in parallel, one descent
    each per round. A start ends when it gains little more or has reached the same error as another.
    The last start, a speculative one, also ends when it is far above the best.
    """
    places = [(np.inf, start) for start in starts]
    ended, active = [], list(range(len(starts)))
    for _ in range(ROUNDS):
        for k in list(active):
            before, reduced = places[k]
            reduced, remains = _descend(full, norm, reduced, price)
            places[k] = remains, reduced
            error, lowest = np.sqrt(remains), np.sqrt(min(places, key=itemgetter(0))[0])
            others = [np.sqrt(places[j][0]) for j in (*active, *ended) if j != k]
            if (
                error > (1 - GAIN) * np.sqrt(before)
                or any(abs(error - other) <= SAME * error for other in others)
                or (k == len(starts) - 1 and error > FAR * lowest)
            ):
                active.remove(k)
                ended.append(k)
        if not active:
            break
    return min(places, key=itemgetter(0))[1]


def _strongest(full, rank: int):
    """The `rank` states of `full` that by themselves have the largest outputs on white noise."""
    log_lam, B, C = full
    energy = _sizes(log_lam, B) * np.sum(np.abs(C) ** 2, axis=0)
    kept = np.sort(np.argsort(-energy)[:rank])
    return without_real_modes((log_lam[kept], B[kept], C[:, kept]))


@checked
def h2_error(lti: DiagonalLTI, reduced: DiagonalLTI) -> float:
    """The H2 norm of the difference of two real maps, without D.

    That is the root of the mean square of the difference of their outputs on white noise, summed
    over outputs: |Re(C L)| in the Frobenius norm, P = L L^H the Gramian of the difference, a system
    of its own. Only the outputs themselves are subtracted, so an error keeps its digits down to
    about 1e-15 of the norms. If the sum over pairs of states is accurate enough, it is used
    instead, since it needs no compilation.

    Raises ValueError if the systems do not fit, hold NaN or infinity, or are not stable.
    """
    check_pair(lti, reduced, "lti", "reduced")
    log_lam, B, C = difference = _difference(double_arrays(lti), double_arrays(reduced))
    summed = _summed_norm(difference)
    if summed is not None:
        return summed
    D = np.zeros((C.shape[0], B.shape[1]))
    L, _ = gramian_factors(DiagonalLTI(log_lam, B, C, D), "real")
    with one_blas_thread():
        return float(np.linalg.norm(np.real(C @ L)))


def _summed_norm(system) -> float | None:
    """The H2 norm as a sum over all pairs of states; None if rounding affects its digits."""
    log_lam, B, C = system
    sizes = np.linalg.norm(B, axis=1) * np.linalg.norm(C, axis=0)
    square, terms = 0.0, 0.0
    with one_blas_thread():
        for log_a, B_a, C_a in ((log_lam.conj(), B.conj(), C.conj()), (log_lam, B, C)):
            sums = -1 / np.expm1(log_a[:, None] + log_lam)
            square += float(np.sum(np.real((B_a @ B.T) * (C_a.T @ C) * sums))) / 2
            terms += float(sizes @ np.abs(sums) @ sizes) / 2
    return float(np.sqrt(square)) if square > DIGITS * np.finfo(float).eps * terms else None


def inner(a, b) -> tuple[float, PerEntry]:
    """<a, b> of two systems (log_lam, B, C), and its gradient by `b`."""
    return _by_reduced(_pairings(a, *b[:2]), b)


def _pairings(a, log_b, B_b):
    """Of `a` and of its conjugate: B, C, the sums of lam_a^k lam_b^k, and these times B_a B_b^T."""
    (log_a, B_a, C_a), found = a, []
    for log_lam, B, C in ((log_a.conj(), B_a.conj(), C_a.conj()), (log_a, B_a, C_a)):
        sums = -1 / np.expm1(log_lam[:, None] + log_b)
        found.append((B, C, sums, (B @ B_b.T) * sums))
    return found


def _by_C(pairings):
    """The gradient of <a, b> by b's C. It does not depend on C."""
    return np.conj(sum(C @ into for _, C, _, into in pairings)) / 2


def _by_reduced(pairings, b) -> tuple[float, PerEntry]:
    """`inner` from the pairings of `a` and `b`."""
    _, B_b, C_b = b
    by_lam, by_B = np.zeros(len(B_b), complex), np.zeros_like(B_b)
    for B, C, sums, into in pairings:
        out = (C.T @ C_b) * sums
        by_lam = by_lam + np.sum(into * out * (1 - 1 / sums), axis=0)
        by_B = by_B + out.T @ B
    by_b = PerEntry(by_lam.conj() / 2, by_B.conj() / 2, _by_C(pairings))
    return float(np.sum(np.real(by_b.C.conj() * C_b))), by_b


def _descend(full, norm: float, start, price: float):
    """The end of a descent from `start`, and the objective there with the penalty, as a share of
    `norm`. The objective is scaled by its value at the start, since errors may be small. Variables
    are the logarithms of the decays, the angles in units of the decay, and B, with rows of length
    one; C is the best one.
    """
    log_lam, B, _ = start
    B = B / np.linalg.norm(B, axis=1, keepdims=True)
    r, decay = len(B), -log_lam.real

    def reduced(x):
        by_decay, by_angle, re, im = np.split(x, [r, 2 * r, 2 * r + B.size])
        now = -decay * np.exp(by_decay) + 1j * (log_lam.imag + decay * by_angle)
        return _with_best_C(full, now, (re + 1j * im).reshape(B.shape), price)

    def remains(x):
        now, explained, pairings = reduced(x)
        _, own = inner(now, now)
        _, by_full = _by_reduced(pairings, now)
        by_size = _by_size(now)
        by_lam = own.log_lam - by_full.log_lam + price * by_size.log_lam
        by_B = own.B - by_full.B + price * by_size.B
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
    """The system of these eigenvalues and inputs with the C that is best, <f, r>, and pairings."""
    r, pairings = len(B), _pairings(full, log_lam, B)
    to_C = _by_C(pairings)
    both = np.concatenate([np.real(to_C), -np.imag(to_C)], axis=1)
    of_states = np.diag(np.tile(price * _sizes(log_lam, B), 2))
    C = least_squares(white_moments(log_lam, B) + of_states, both)
    return (log_lam, B, C[:, :r] - 1j * C[:, r:]), float(np.sum(both * C)), pairings


def _by_size(system) -> PerEntry:
    """Half of the gradient of the penalty."""
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
