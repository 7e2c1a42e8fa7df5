"""The two-sided iteration towards an H2-optimal reduction of a real map.

At the optimum the reduced system is the projection of the full one (Wilson 1970) with

    V = E[x z^T],  W = E[w v^T]

of the states x, z of both under white noise, and w, v of their duals. Iterating that is TSIA (Xu &
Zeng 2011), in discrete time MIRIAm (Bunse-Gerstner et al. 2010). Its fixed points are stationary
points of the error. It need not converge, so its result must be judged by its error.
"""

from typing import Any, NamedTuple

import numpy as np

from .lift import is_real

STEPS = 50
"""Most steps of the iteration."""

STILL = 1e-6
"""Relative change of 1 - lam below which the eigenvalues stand still."""


class RealModes(NamedTuple):
    """A real system of conjugate pairs, one of each, and of real modes, whose b and c are real."""

    pairs: tuple[Any, Any, Any]
    reals: tuple[Any, Any, Any]


def two_sided(full, reduced):
    """The end of the iteration from `reduced`: a system with as many stored states, or None. Both
    are (log_lam, B, C) of maps y = Re(C x). It stops when eigenvalues do not change, are not
    stable, or are not finite. The last stable system is returned, None if there was none.
    """
    log_lam, B, C = without_real_modes(reduced)
    size = len(log_lam)
    none = log_lam[:0].real, B[:0].real, C[:, :0].real
    modes, found = RealModes((log_lam, B, C / 2), none), None
    for _ in range(STEPS):
        before = modes
        modes = _step(full, modes)
        if modes is None:
            break
        found = modes
        if _stands_still(before, modes):
            break
    return None if found is None else _stored(found, size)


def without_real_modes(system):
    """The same with slow rotations for real modes: a stored state can be a pair of modes."""
    log_lam, B, C = system
    towards = np.where(log_lam.imag > 0, -1, 1)  # zero, or from pi
    turned = log_lam - 0.5j * towards * log_lam.real
    return np.where(is_real(log_lam), turned, log_lam), B, C


def _step(full, modes: RealModes) -> RealModes | None:
    """The projection by the cross-covariances with `modes`; None if it is not stable."""
    log_lam, B, C = full
    V = _basis(log_lam, B, *((x[0], x[1]) for x in modes))
    W = _basis(log_lam.conj(), C.conj().T, *((x[0].conj(), x[2].conj().T) for x in modes))
    if V is None or W is None:
        return None
    n = len(log_lam)
    complex_V = V[:n] + 1j * V[n:]
    try:
        left = np.linalg.solve(W.T @ V, W.T)
        values, X = np.linalg.eig(left @ _stacked(np.expm1(log_lam)[:, None] * complex_V))
        b = np.linalg.solve(X, left @ _stacked(B))
    except np.linalg.LinAlgError:
        return None
    c = np.real(C @ complex_V) @ X
    re, im = np.real(values), np.imag(values)  # of lam - 1
    with np.errstate(divide="ignore"):
        logs = 0.5 * np.log1p(re * (2 + re) + im**2)
    if not (np.all(np.isfinite(logs)) and np.all(logs < 0)):
        return None
    up, real = im > 0, im == 0
    logs = logs + 1j * np.arctan2(im, 1 + re)
    return RealModes(
        (logs[up], b[up], c[:, up]), (logs[real], np.real(b[real]), np.real(c[:, real]))
    )


def _basis(log_lam, B, pairs, reals):
    """An orthonormal basis [2n k] of the real states' cross-covariances; None if not finite."""
    (log_up, b_up), (log_real, b_real) = pairs, reals
    one = _covariance(log_lam, B, log_up, b_up)
    other = _covariance(log_lam, B, log_up.conj(), b_up.conj())
    last = _covariance(log_lam, B, log_real, b_real)
    columns = np.concatenate([one + other, 1j * (one - other), last], axis=1)
    stacked = _stacked(columns)
    stacked = stacked / np.maximum(np.linalg.norm(stacked, axis=0), np.finfo(float).tiny)
    return np.linalg.qr(stacked)[0] if np.all(np.isfinite(stacked)) else None


def _covariance(log_lam, B, log_r, b):
    return (B @ b.T) / -np.expm1(log_lam[:, None] + log_r)


def _stacked(z):
    return np.concatenate([np.real(z), np.imag(z)])


def _stands_still(before: RealModes, after: RealModes) -> bool:
    gaps = [
        np.sort_complex(np.concatenate([np.expm1(part[0]) for part in modes]))
        for modes in (before, after)
    ]
    if len(gaps[0]) != len(gaps[1]):
        return False
    return bool(np.all(np.abs(gaps[1] - gaps[0]) <= STILL * np.abs(gaps[1])))


def _stored(modes: RealModes, size: int):
    """One stored state for each pair, and for each two neighbours among the real modes.

    Two real modes are no stored state, but near one that turns slowly.
    """
    (log_up, b_up, c_up), (log_real, b_real, c_real) = modes
    order = np.argsort(log_real.real + np.where(np.abs(log_real.imag) > 1, -1e9, 0))
    first, second = order[: len(order) // 2 * 2 : 2], order[1::2]
    decay = -np.sqrt(log_real.real[first] * log_real.real[second])
    angle = np.where(np.abs(log_real.imag[first]) > 1, np.pi + 0.5 * decay, -0.5 * decay)
    log_lam = np.concatenate([log_up, decay + 1j * angle])
    B = np.concatenate([b_up, b_real[first] + 1j * b_real[second]])
    C = np.concatenate([2 * c_up, c_real[:, first] - 1j * c_real[:, second]], axis=1)
    return (log_lam, B, C) if len(log_lam) == size else None
