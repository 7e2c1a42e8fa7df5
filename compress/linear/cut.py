"""The cut of a linear layer, and how moments follow it: through the lift of its system.

Gradients go through the adjoint of the lift of a change of the reduced system to the full one
(`compress.linear.lift`), and on both sides through the layer's own parameterisation. Copies of
parameters are systems of their own: W A V, W B, C V.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
import scipy

from zoo import AbstractSSM, DiagonalLTI

from ..cut import AbstractCut, Leaves
from .jacobian import Parameters, derivatives
from .lift import Projection, is_real, pull_back, pull_back_squares, real_basis, turn
from .modal import project, project_real
from .system import double_lti, from_double_lti


@dataclass(frozen=True)
class LinearCut(AbstractCut):
    """A linear layer before and after its truncation."""

    system: DiagonalLTI
    """Of the layer before, in double precision."""
    projection: Projection
    fitted: tuple[Any, Any] | None = None
    """The change of C [p r] and D by a refit."""

    @cached_property
    def _parameters(self) -> tuple[Parameters, Parameters]:
        return derivatives(self.before), derivatives(self.after)

    def gradients(self, arrays: Leaves) -> Leaves:
        full, reduced = self._parameters
        gradient = pull_back(full.to_system(arrays), self.system, self.projection)
        return reduced.from_system(gradient)

    def squares(self, arrays: Leaves) -> Leaves:
        full, reduced = self._parameters
        squares = pull_back_squares(full.squares_to_system(arrays), self.system, self.projection)
        return reduced.squares_from_system(squares)

    def copies(self, arrays: Leaves) -> Leaves:
        """The copy's system, projected.

        Its states are matched to those of the layer, in order and in scale, so that averaging can
        continue. A refit's change of the layer's C and D is added to the copy's.
        """
        leaves, structure = jax.tree.flatten(self.before)
        after = jax.tree.leaves(self.after)
        copy = structure.unflatten([arrays.get(k, x) for k, x in enumerate(leaves)])
        lti, basis = projected_system(double_lti(copy), self.projection)
        if lti.d_state == self.after.d_state:
            lti = matched(lti, basis)
            if self.fitted is not None:
                of_C, of_D = self.fitted
                lti = DiagonalLTI(lti.log_lam, lti.B, lti.C + of_C, np.asarray(lti.D) + of_D)
            after = jax.tree.leaves(from_double_lti(self.after, lti))
        # else a pair has become two real modes, or the other way
        changed = [
            not np.array_equal(*pair)
            for pair in zip(leaves, jax.tree.leaves(self.after), strict=True)
        ]
        return {k: np.asarray(after[k]) for k in arrays if changed[k]}

    def first_entries(self, place: int, x: Any) -> Any:
        return x[tuple(map(slice, jax.tree.leaves(self.after)[place].shape))]

    def filled(self, rank: int) -> AbstractCut:
        return FilledCut(self.before, _filled(self.after, rank), self)


@dataclass(frozen=True)
class FilledCut(AbstractCut):
    """A cut with additional states without input. Their moments are zero."""

    cut: LinearCut

    def gradients(self, arrays: Leaves) -> Leaves:
        return self._padded(self.cut.gradients(arrays))

    def squares(self, arrays: Leaves) -> Leaves:
        return self._padded(self.cut.squares(arrays))

    def copies(self, arrays: Leaves) -> Leaves:
        leaves, structure = jax.tree.flatten(self.cut.after)
        new = self.cut.copies(arrays)
        copy = structure.unflatten([new.get(k, arrays.get(k, x)) for k, x in enumerate(leaves)])
        filled = jax.tree.leaves(_filled(copy, self.after.d_state))
        return {k: np.asarray(filled[k]) for k in new}

    def first_entries(self, place: int, x: Any) -> Any:
        return self._padded({place: np.asarray(self.cut.first_entries(place, x))})[place]

    def _padded(self, arrays: Leaves) -> Leaves:
        shapes = [np.shape(x) for x in jax.tree.leaves(self.after)]
        return {
            k: np.pad(x, [(0, new - old) for new, old in zip(shapes[k], x.shape, strict=True)])
            for k, x in arrays.items()
        }


def _filled(layer: AbstractSSM, rank: int) -> AbstractSSM:
    """`layer` with `rank` states in all: its own, then copies of its last state without input. They
    do not change the outputs. Their C is not zero, so their B has gradients.
    """
    return from_double_lti(layer, filled_system(double_lti(layer), rank))


def filled_system(lti: DiagonalLTI, rank: int) -> DiagonalLTI:
    """`lti` with such additional states."""
    more = rank - lti.d_state
    return DiagonalLTI(
        log_lam=np.pad(lti.log_lam, (0, more), mode="edge"),
        B=np.pad(lti.B, ((0, more), (0, 0))),
        C=np.pad(lti.C, ((0, 0), (0, more)), mode="edge"),
        D=lti.D,
    )


def matched(lti: DiagonalLTI, basis) -> DiagonalLTI:
    """`lti` with its states in the order, and of the scale, of those that `basis` maps them to."""
    _, order = scipy.optimize.linear_sum_assignment(-np.abs(basis) / np.linalg.norm(basis, axis=0))
    scale = basis[np.arange(len(order)), order]
    scale = np.where(np.abs(scale) > 0.1 * np.linalg.norm(basis[:, order], axis=0), scale, 1)
    return DiagonalLTI(
        log_lam=np.asarray(lti.log_lam)[order],
        B=np.asarray(lti.B)[order] * scale[:, None],
        C=np.asarray(lti.C)[:, order] / scale,
        D=lti.D,
    )


def projected_system(lti: DiagonalLTI, projection: Projection):
    """`lti` reduced in the same way, and the map from its states to those of the projection."""
    W, W_conj = projection.W, projection.W_conj
    if projection.V_conj is None or W_conj is None:
        reduced, V, _ = project(lti, projection.V, W)
        return reduced, W @ V
    to = project_real(lti, *real_basis(projection))
    real = is_real(np.asarray(to.lti.log_lam))
    # a real mode's state has one phase only, so its conjugate is a multiple of it
    on_conj = (W @ to.V_conj + W_conj @ to.V.conj()) * turn(real).conj() ** 2
    return to.lti, W @ to.V + W_conj @ to.V_conj.conj() + np.where(real, on_conj, 0)
