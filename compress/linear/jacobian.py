"""The derivatives of a layer's system by its parameters, and gradients in both directions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Complex, Inexact, PyTree

from zoo import AbstractSSM
from zoo.layers.base import as_linear

from ..cut import Leaves
from ..numerics.precision import is_inexact, jit_for_once, widen
from .system import padded_layer


class PerEntry(NamedTuple):
    """A complex number for each entry of a system. Its two parts belong to the entry's two parts.

    A gradient is dloss/dRe + i dloss/dIm; of squares, the square for Re plus i times that for Im.
    """

    log_lam: Complex[np.ndarray, " n"]
    B: Complex[np.ndarray, "n m"]
    C: Complex[np.ndarray, "p n"]


@dataclass(frozen=True)
class Parameters:
    """Derivatives of (log_lam, B, C) by the parameters of a layer, which act entry by entry.

    A number per state ([n]) acts on that state's eigenvalue, row of B and column of C; an entry of
    an [n, m] field on the same entry of B, and of a [p, n] field on that of C. All other fields (D)
    do not act on the system. Each field is named by its place among the layer's leaves.
    """

    of_state: Mapping[int, PerEntry]
    of_B: Mapping[int, Complex[np.ndarray, "n m"]]
    of_C: Mapping[int, Complex[np.ndarray, "p n"]]
    shapes: tuple[tuple[int, ...], ...]
    """Of log_lam, B and C."""

    def to_system(self, gradients: Leaves) -> PerEntry:
        """The gradient by the system, from the gradients by the parameters.

        Least squares where several parameters act on one number; missing fields count as zero.
        """
        of_log_lam = {k: d.log_lam for k, d in self.of_state.items()}
        B = _solve(self.of_B, gradients, self.shapes[1])
        C = _solve(self.of_C, gradients, self.shapes[2])
        rest = {
            k: gradients[k] - np.sum(_dot(B, d.B), axis=1) - np.sum(_dot(C, d.C), axis=0)
            for k, d in self.of_state.items()
            if k in gradients
        }
        return PerEntry(_solve(of_log_lam, rest, self.shapes[0]), B, C)

    def from_system(self, gradient: PerEntry) -> Leaves:
        """The gradients by the parameters, from the gradient by the system: the chain rule."""
        return {
            **{k: _dot(gradient.B, d) for k, d in self.of_B.items()},
            **{k: _dot(gradient.C, d) for k, d in self.of_C.items()},
            **{
                k: _dot(gradient.log_lam, d.log_lam)
                + np.sum(_dot(gradient.B, d.B), axis=1)
                + np.sum(_dot(gradient.C, d.C), axis=0)
                for k, d in self.of_state.items()
            },
        }

    def first(self, n: int) -> "Parameters":
        """Those of the first `n` states."""
        of_state = {
            k: PerEntry(d.log_lam[:n], d.B[:n], d.C[:, :n]) for k, d in self.of_state.items()
        }
        _, (_, m), (p, _) = self.shapes
        return Parameters(
            of_state,
            {k: d[:n] for k, d in self.of_B.items()},
            {k: d[:, :n] for k, d in self.of_C.items()},
            ((n,), (n, m), (p, n)),
        )

    def squares_to_system(self, squares: Leaves) -> PerEntry:
        """`to_system` for squares, by the squares of its coefficients."""
        of_log_lam = {k: d.log_lam for k, d in self.of_state.items()}
        return PerEntry(
            _solve_squares(of_log_lam, squares, self.shapes[0]),
            _solve_squares(self.of_B, squares, self.shapes[1]),
            _solve_squares(self.of_C, squares, self.shapes[2]),
        )

    def squares_from_system(self, squares: PerEntry) -> Leaves:
        """`from_system` for squares, by the squares of its coefficients."""
        return Parameters(
            {k: PerEntry(*map(square_parts, d)) for k, d in self.of_state.items()},
            {k: square_parts(d) for k, d in self.of_B.items()},
            {k: square_parts(d) for k, d in self.of_C.items()},
            self.shapes,
        ).from_system(squares)


def derivatives(layer: AbstractSSM) -> Parameters:
    """The derivatives of `layer.to_lti()` by its parameters, in double precision.

    ValueError if they do not act entry by entry, as `Parameters` says.
    """
    return _derivatives(padded_layer(layer)).first(layer.d_state)


def _derivatives(layer: AbstractSSM) -> Parameters:
    fields = {k: x.shape for k, x in enumerate(jax.tree.leaves(layer)) if is_inexact(x)}
    rng = np.random.default_rng(0)
    trial = {k: rng.standard_normal(shape) for k, shape in fields.items()}
    with jax.enable_x64(True):
        wide = widen(layer)
        ones = [{k: np.ones(shape)} for k, shape in fields.items()]
        response, *units = _push(wide, [trial, *ones])
    unit = dict(zip(fields, units, strict=True))
    log_lam, B, C = (x.shape for x in response)
    of_state = {k: d for k, d in unit.items() if fields[k] == log_lam and any(map(np.any, d))}
    found = Parameters(
        of_state,
        {k: d.B for k, d in unit.items() if fields[k] == B and np.any(d.B)},
        {k: d.C for k, d in unit.items() if fields[k] == C and np.any(d.C)},
        (log_lam, B, C),
    )
    probe = PerEntry(*(rng.standard_normal(x.shape) + 0j for x in response))
    gradient = found.from_system(probe)
    forward = sum(float(np.sum(_dot(g, x))) for g, x in zip(probe, response, strict=True))
    if not np.isclose(forward, sum(float(np.sum(trial[k] * x)) for k, x in gradient.items())):
        raise ValueError(
            f"`moments` must be 'reset' or 'slice' for {type(layer).__name__}, whose parameters do "
            "not act entry by entry on its system, got 'transport'"
        )
    return found


def square_parts(d: Complex[np.ndarray, "..."]) -> Complex[np.ndarray, "..."]:
    """Re^2 + i Im^2."""
    return np.square(np.real(d)) + 1j * np.square(np.imag(d))


def _push(layer: AbstractSSM, tangents: Sequence[Leaves]) -> list[PerEntry]:
    """The change of the layer's system for each of these changes of its leaves."""
    leaves, treedef = jax.tree.flatten(layer)

    def stacked(k: int, x: Any) -> Any:
        changes = [tangent.get(k, np.zeros(x.shape)) for tangent in tangents]
        return jax.device_put(np.stack(changes).astype(x.dtype))

    changes = [stacked(k, x) if is_inexact(x) else None for k, x in enumerate(leaves)]
    pushed = jax.tree.map(np.asarray, _jvp(layer, treedef.unflatten(changes)))
    return [PerEntry(*parts) for parts in zip(*pushed, strict=True)]


@jit_for_once
def _jvp(layer: AbstractSSM, tangents: PyTree) -> PerEntry:
    """The change of the layer's system, for each entry of the first axis of `tangents`."""

    def system(layer):
        lti: Any = as_linear(layer).to_lti()
        return PerEntry(lti.log_lam, lti.B, lti.C)

    return jax.vmap(lambda tangent: eqx.filter_jvp(system, (layer,), (tangent,))[1])(tangents)


def _dot(gradient: Inexact[np.ndarray, "..."], change: Inexact[np.ndarray, "..."]):
    """The change of the loss, entry by entry, when an entry of the system changes."""
    return np.real(gradient) * np.real(change) + np.imag(gradient) * np.imag(change)


def _solve(by: Mapping[int, Complex[np.ndarray, "..."]], gradients: Leaves, shape):
    """The g that comes closest to _dot(g, by[k]) = gradients[k], entry by entry."""
    dual = _dual(by, shape)
    return sum((gradients[k] * dual[k] for k in by if k in gradients), np.zeros(shape, complex))


def _solve_squares(by: Mapping[int, Complex[np.ndarray, "..."]], squares: Leaves, shape):
    dual = {k: square_parts(d) for k, d in _dual(by, shape).items()}
    return sum((squares[k] * dual[k] for k in by if k in squares), np.zeros(shape, complex))


def _dual(by: Mapping[int, Complex[np.ndarray, "..."]], shape):
    """The coefficients of least squares: (sum_k d_k d_k^T)^-1 d_k, with d_k in the plane."""
    xx, xy, yy = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for d in by.values():
        xx, xy, yy = xx + np.real(d) ** 2, xy + np.real(d) * np.imag(d), yy + np.imag(d) ** 2
    determinant = xx * yy - xy**2
    flat = determinant <= 1e-24 * (xx + yy) ** 2
    scale = np.where(flat, np.maximum(xx + yy, np.finfo(float).tiny), 1.0)
    inverse = np.where(flat, 0.0, 1.0) / np.where(flat, 1.0, determinant)
    return {
        k: np.where(
            flat,
            d / scale,
            inverse
            * ((yy * np.real(d) - xy * np.imag(d)) + 1j * (xx * np.imag(d) - xy * np.real(d))),
        )
        for k, d in by.items()
    }
