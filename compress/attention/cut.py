"""The cut of a layer of linear attention, written into the parameters of its keys, and how moments
follow.

With S near U W^T S the reduced layer's keys are W^T k, its queries U^T q. The lift of a change of
the reduced layer to the full one is dk = U dk_r and dq = W dq_r, so gradients of the parameters of
keys are multiplied by U^T, those of queries by W^T. For selections, U and W hold unit vectors, and
the rows of each key's decay are selected too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from zoo import AbstractLinearAttention

from ..cut import AbstractCut, Leaves
from ..numerics.precision import narrow, of_numpy, widen


@dataclass(frozen=True)
class KeyBasis:
    """S near U g with g = W^T S, W^T U = I, for each key head."""

    U: Float[np.ndarray, "G K r"]
    W: Float[np.ndarray, "G K r"]

    @classmethod
    def selection(cls, keys: list[Any], K: int) -> "KeyBasis":
        """The basis of these keys, a list of numbers for each key head."""
        U = np.stack([np.eye(K)[:, np.asarray(of_head)] for of_head in keys])
        return cls(U, U)


def fold(layer: AbstractLinearAttention, basis: KeyBasis) -> AbstractLinearAttention:
    """`layer` with the states of `basis`, computed in double precision, in its kind of arrays."""
    with jax.enable_x64(True):
        mapped = _mapped(widen(layer), basis.U, basis.W, basis.U)
        mapped = of_numpy(mapped)
    return narrow(mapped, layer)


def _mapped(layer: AbstractLinearAttention, q: Any, k: Any, decay: Any) -> AbstractLinearAttention:
    """`layer` with the rows that make these multiplied by transposes of matrices [G K r]."""
    return layer.map_keys(*(_times(matrix) for matrix in (q, k, decay)))


def _times(matrices: Float[np.ndarray, "G K r"]) -> Callable[[Any], Any]:
    return lambda rows: np.einsum("gkr,gk...->gr...", matrices, np.asarray(rows))


@dataclass(frozen=True)
class KeysCut(AbstractCut):
    """A layer before and after its keys were mapped to fewer, by a change of their parameters."""

    before: AbstractLinearAttention
    after: AbstractLinearAttention
    basis: KeyBasis

    def gradients(self, arrays: Leaves) -> Leaves:
        return self._through(arrays, self.basis.U, self.basis.W)

    def squares(self, arrays: Leaves) -> Leaves:
        return self._through(arrays, self.basis.U**2, self.basis.W**2)

    def copies(self, arrays: Leaves) -> Leaves:
        leaves, structure = jax.tree.flatten(self.before)
        copy = structure.unflatten(
            [jax.device_put(np.asarray(arrays.get(k, x), x.dtype)) for k, x in enumerate(leaves)]
        )
        new = jax.tree.leaves(fold(copy, self.basis))
        return {k: np.asarray(new[k]) for k in arrays if np.shape(new[k]) != np.shape(leaves[k])}

    def first_entries(self, place: int, x: Any) -> Any:
        leaves, structure = jax.tree.flatten(self.before)
        leaves[place] = jax.device_put(x)
        small = structure.unflatten(leaves).first_states(self.after.d_state)
        return jax.tree.leaves(small)[place]

    def _through(self, arrays: Leaves, U: Any, W: Any) -> Leaves:
        """The adjoint of the lift, or the same with the squares of its coefficients."""
        leaves, structure = jax.tree.flatten(self.before)
        with jax.enable_x64(True):
            given = [
                jax.device_put(arrays.get(k, np.zeros(np.shape(x)))) for k, x in enumerate(leaves)
            ]
            new = jax.tree.leaves(_mapped(structure.unflatten(given), W, U, U))
            return {k: np.asarray(new[k]) for k in arrays if new[k] is not given[k]}
