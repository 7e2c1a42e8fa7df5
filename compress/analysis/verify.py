"""Measures the error of a truncation and compares it with its bound."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import PyTree

from zoo import AbstractSSM, DiagonalLTI
from zoo.layers.base import is_bank
from zoo.typing import checked

from ..linear.balance import all_values, gramian_factors, hankel_svd
from ..linear.bank import double_bank
from ..linear.hankel import Form, check_pair, error_bound, rounding_gain
from ..linear.system import double_lti
from ..model.layers import layers_of, path_name
from ..model.stacks import unstacked
from ..numerics.precision import rounding_of
from ..numerics.table import Table
from ..numerics.threads import one_blas_thread


@dataclass(frozen=True)
class Certificate:
    """The theoretical bounds for a smaller layer, and the measured error."""

    path: str
    """The layer's path in the model."""
    rank_before: int
    rank_after: int
    floor: float
    """Lower bound of the error's gain for any system of this size: the first dropped HSV."""
    error: float
    """The measured gain of the error, an H-infinity norm."""
    bound: float
    """Upper bound of the error's gain for balanced truncation to this size: 2 * (sum of the dropped
    HSVs)."""

    rounding: float = 0.0
    """The gain of the rounding of the smaller layer's parameters, to first order
    (`compress.linear.hankel.rounding_gain`), and the computation in double precision."""

    channels: tuple["Certificate", ...] = ()
    """Of a bank, those of its channels, each a system of its own. The numbers of the layer are the
    largest of theirs."""

    @property
    def holds(self) -> bool:
        """Whether the error is within the bound, give or take rounding, in each channel."""
        if self.channels:
            return all(channel.holds for channel in self.channels)
        return self.error <= self.bound * (1 + 1e-6) + self.rounding


@dataclass(frozen=True)
class Verification(Table):
    """The certificates of all layers. Prints as a table."""

    layers: tuple[Certificate, ...]

    @property
    def holds(self) -> bool:
        """Whether the bound holds for every layer."""
        return all(layer.holds for layer in self.layers)

    def header(self) -> list[str]:
        return ["layer", "states", "after", "error >=", "error", "error <=", "holds"]

    def rows(self) -> list[list[str]]:
        return [
            [
                layer.path or "(model)",
                f"{layer.rank_before}",
                f"{layer.rank_after}",
                f"{layer.floor:.3g}",
                f"{layer.error:.3g}",
                f"{layer.bound:.3g}",
                "yes" if layer.holds else "no",
            ]
            for layer in self.layers
        ]


@checked
def verify(before: PyTree, after: PyTree, *, form: Form = "real") -> Verification:
    """Measure the error of every layer of `after` against the layer of `before` at its path.

    Both are models with `AbstractSSM` layers at the same paths, or two `DiagonalLTI`. The bound is
    that of balanced truncation to the size which `after` has; reductions by data may exceed it,
    since they aim at other inputs. In a bank every channel is measured. `form` as for `hinf_error`.
    In double precision.

    ValueError if the layers do not match, hold NaN or infinity, or are not stable.
    """
    if isinstance(before, DiagonalLTI) and isinstance(after, DiagonalLTI):
        return Verification((_certificate("", before, after, rounding_of(after), form),))
    return Verification(tuple(_of_layers(*pair, form) for pair in _pairs(before, after)))


def _pairs(before: PyTree, after: PyTree) -> list[tuple[str, AbstractSSM, AbstractSSM]]:
    """The layers' names, and the layers before and after."""
    old, new = (
        {path_name(k): layer for k, layer in layers_of(unstacked(x))} for x in (before, after)
    )
    if not old or old.keys() != new.keys():
        raise ValueError(
            f"`after` must have the layers of `before`, {', '.join(old) or 'at least one'}, got "
            f"{', '.join(new) or 'none'}"
        )
    return [(path, old[path], new[path]) for path in old]


def _of_layers(path: str, before: AbstractSSM, after: AbstractSSM, form: Form) -> Certificate:
    """The certificate of one layer, of a bank out of those of its channels."""
    eps = rounding_of(after)
    if not is_bank(before):
        return _certificate(path, double_lti(before), double_lti(after), eps, form)
    if after.d_model != before.d_model:
        raise ValueError(
            f"`after` must have {before.d_model} channels in {path or 'the layer'}, as `before`, "
            f"got {after.d_model}"
        )
    pairs = zip(double_bank(before), double_bank(after), strict=True)
    channels = tuple(
        _certificate(f"{path}, channel {h}", one, other, eps, form)
        for h, (one, other) in enumerate(pairs)
    )
    worst = {
        name: max(getattr(channel, name) for channel in channels)
        for name in ("floor", "error", "bound", "rounding")
    }
    return Certificate(path, before.d_state, after.d_state, **worst, channels=channels)


def _certificate(
    path: str, before: DiagonalLTI, after: DiagonalLTI, eps: float, form: Form
) -> Certificate:
    error = hinf_error(before, after, form=form)
    svd = hankel_svd(form, *gramian_factors(before, form))  # programs that the cut has used
    sigma = all_values(form, svd, before.d_state)
    most = len(np.asarray(after.log_lam))
    heard = np.any(np.asarray(after.B) != 0, axis=1)  # others only fill a layer up
    log_lam = np.asarray(after.log_lam)[heard]
    order = len(log_lam)
    if form == "real":  # conjugate pairs count twice, real modes once
        real = np.abs(np.sin(np.imag(log_lam))) < 1e-5
        most, order = 2 * most, 2 * order - int(np.sum(real))
    double = float(np.finfo(float).eps)
    return Certificate(
        path=path,
        rank_before=before.d_state,
        rank_after=after.d_state,
        floor=float(sigma[most]) if most < len(sigma) else 0.0,
        error=error,
        bound=float(error_bound(sigma, order)),
        rounding=rounding_gain(after, eps) + rounding_gain(before, double),
    )


@checked
def hinf_error(before: DiagonalLTI, after: DiagonalLTI, *, form: Form = "real") -> float:
    """H-infinity norm of the difference of two systems with the same inputs and outputs.

    form="complex": of the complex systems (lam, B, C); form="real": of the real maps
    u -> Re(C x). The difference of the D counts in both. On the host, in double precision.

    The largest singular value of the difference's transfer function is swept over the unit circle:
    all poles' angles at distances in units of their own decay, and a uniform grid; a few steps of
    power iteration find the best points, exact values are then refined around each.

    Raises ValueError if the systems do not fit, hold NaN or infinity, or are not stable.
    """
    check_pair(before, after, "before", "after")
    with one_blas_thread():
        return _sweep(_Difference(before, after, real=form == "real"))


def _sweep(difference: "_Difference") -> float:
    grid = difference.grid()
    estimate = difference.estimate(grid)
    peak = estimate.max()
    if peak == 0:
        return 0.0
    left, right = np.roll(estimate, 1), np.roll(estimate, -1)
    tops = np.flatnonzero((estimate >= left) & (estimate >= right) & (estimate > KEPT * peak))
    tops = tops[np.argsort(-estimate[tops])][:MOST_TOPS]
    exact = difference.norm(grid[tops])
    tops = tops[exact > REFINED * exact.max()]
    lower = np.where(tops > 0, grid[tops - 1], grid[-1] - 2 * np.pi)
    upper = np.where(tops + 1 < grid.size, grid[(tops + 1) % grid.size], grid[0] + 2 * np.pi)
    return float(_maximise(difference.norm, lower, grid[tops], upper))


class _Difference:
    """The transfer function G(exp(i w)) of before - after, in modal form."""

    def __init__(self, before: DiagonalLTI, after: DiagonalLTI, *, real: bool):
        systems = [[_double(x) for x in (s.log_lam, s.B, s.C)] for s in (before, after)]
        self.log_lam = np.concatenate([log_lam for log_lam, _, _ in systems])
        self.B = np.concatenate([B for _, B, _ in systems])
        self.C = np.concatenate([systems[0][2], -systems[1][2]], axis=1)
        self.D = _matrix(before) - _matrix(after)
        if real:
            self.log_lam = np.concatenate([self.log_lam, self.log_lam.conj()])
            self.B = np.concatenate([self.B, self.B.conj()])
            self.C = np.concatenate([self.C, self.C.conj()], axis=1) / 2
        self.real = real

    def grid(self):
        """Frequencies in rad/sample, ascending, on (-pi, pi], or [0, pi] for a real map."""
        decay, angle = -self.log_lam.real, self.log_lam.imag
        steps = np.concatenate([[0.0], *([-s, s] for s in STEPS)])
        near = (angle[:, None] + decay[:, None] * steps).ravel()
        w = np.concatenate([near, np.linspace(-np.pi, np.pi, UNIFORM)])
        w = np.pi - np.mod(np.pi - w, 2 * np.pi)
        return np.unique(np.abs(w) if self.real else w)

    def gains(self, w):
        return -1 / np.expm1(self.log_lam - 1j * w[:, None])

    def norm(self, w):
        """Largest singular value of G at each of the frequencies `w`."""
        return _in_parts(self._norm, w)

    def estimate(self, w):
        """The same within some 15 percent from below, at O(n (m + p)) per frequency."""
        small = min(self.D.shape) <= SMALL
        return _in_parts(self._norm if small else self._power_iteration, w)

    def _norm(self, w):
        p, m = self.D.shape
        scaled = self.C * self.gains(w)[:, None, :]
        G = (scaled.reshape(w.size * p, -1) @ self.B).reshape(w.size, p, m) + self.D
        return np.linalg.svd(G, compute_uv=False)[:, 0]

    def _power_iteration(self, w):
        rng = np.random.default_rng(0)
        start = rng.standard_normal(self.D.shape[1]) + 1j * rng.standard_normal(self.D.shape[1])
        gains, x = self.gains(w), np.broadcast_to(start, (w.size, start.size))
        size = np.zeros(w.size)
        for _ in range(POWER_STEPS):
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
            y = (gains * (x @ self.B.T)) @ self.C.T + x @ self.D.T
            size = np.linalg.norm(y, axis=1)
            x = (gains.conj() * (y @ self.C.conj())) @ self.B.conj() + y @ self.D
        return size


def _maximise(f, lower, middle, upper):
    """Largest value of f around `middle`: golden section search in all brackets at once.

    Brackets whose value lags behind once they are a hundred times narrower are given up.
    """
    ratio = (np.sqrt(5) - 1) / 2
    best = np.max(f(middle))
    a, d = lower, upper
    b, c = d - ratio * (d - a), a + ratio * (d - a)
    fb, fc = f(b), f(c)
    for step in range(GOLDEN_STEPS):
        best = max(best, fb.max(), fc.max())
        if step == 10:
            ahead = np.maximum(fb, fc) >= 0.99 * best
            if not ahead.any():
                break
            a, b, c, d, fb, fc = (x[ahead] for x in (a, b, c, d, fb, fc))
        left = fb > fc
        a, d = np.where(left, a, b), np.where(left, c, d)
        new = np.where(left, d - ratio * (d - a), a + ratio * (d - a))
        value = f(new)
        b, c = np.where(left, new, c), np.where(left, b, new)
        fb, fc = np.where(left, value, fc), np.where(left, fb, value)
    return max(best, fb.max(), fc.max())


def _in_parts(f, w):
    """f(w) in parts of bounded memory."""
    return np.concatenate([f(w[k : k + 128]) for k in range(0, w.size, 128)])


def _double(x):
    return np.asarray(x).astype(np.complex128)


def _matrix(lti: DiagonalLTI):
    D = np.asarray(lti.D).astype(np.float64)
    return np.diag(D) if D.ndim == 1 else D


STEPS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Distances from a pole's angle in the first sweep, in units of its decay."""

UNIFORM = 513
"""Frequencies of the uniform grid."""

SMALL = 8
"""Up to this many inputs or outputs the norm itself is as cheap as its estimate."""

POWER_STEPS = 6
KEPT = 0.7
"""Local maxima of the sweep whose estimate is below this share of the highest are dropped."""

MOST_TOPS = 512
REFINED = 0.9
"""Of those left, the ones whose norm is above this share of the highest are refined."""

GOLDEN_STEPS = 32
