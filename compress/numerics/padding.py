"""Few programs for many sizes: systems padded with states that do nothing, layers with copies.

Compiling takes seconds, running milliseconds, and every shrink brings new numbers of states. So one
program serves all numbers between two sizes: a power of two or 1.5 times one, at least `SMALLEST`.
"""

from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Complex

from zoo import AbstractSSM, DiagonalLTI
from zoo.layers.base import AbstractLinearSSM

SMALLEST = 64
"""Size of the smallest program; what is done with 64 states takes milliseconds."""


def padded_size(n: int) -> int:
    """The number of states of the program for `n` states."""
    size = SMALLEST
    while size < n:
        size = 3 * size // 2 if size & (size - 1) == 0 else 4 * size // 3
    return size


def padded(
    log_lam: Complex[np.ndarray, " n"], B: Complex[np.ndarray, "n m"]
) -> tuple[Complex[np.ndarray, " k"], Complex[np.ndarray, "k m"]]:
    """The states and inputs of a system, and after them states without inputs, k in all."""
    more = padded_size(len(log_lam)) - len(log_lam)
    return np.concatenate([log_lam, np.full(more, -1.0)]), np.pad(B, ((0, more), (0, 0)))


def of_size(layer: AbstractSSM, n: int) -> AbstractSSM:
    """A layer like this one with `n` states, of zeros: only its shapes mean anything."""
    return layer.resized(n)


def padded_layer(layer: AbstractSSM) -> AbstractSSM:
    """`layer` with copies of its last state behind its own, as its program takes it.

    Only for layers that are modal (`AbstractLinearSSM.is_modal`): others stay as they are.
    """
    return _resized(layer, padded_size(layer.d_state))


def padded_system(layer: AbstractSSM, lti: DiagonalLTI) -> DiagonalLTI:
    """`lti` in the same way, for a layer of this kind."""
    if not _is_modal(layer):
        return lti
    more = padded_size(lti.d_state) - lti.d_state
    return DiagonalLTI(
        log_lam=np.pad(lti.log_lam, (0, more), mode="edge"),
        B=np.pad(lti.B, ((0, more), (0, 0)), mode="edge"),
        C=np.pad(lti.C, ((0, 0), (0, more)), mode="edge"),
        D=lti.D,
    )


def first_of_layer(layer: AbstractSSM, n: int) -> AbstractSSM:
    """The first `n` states of a layer that has been padded."""
    return _resized(layer, n)


def first_of_system(lti: DiagonalLTI, n: int) -> DiagonalLTI:
    """The first `n` states of a system."""
    return DiagonalLTI(lti.log_lam[:n], lti.B[:n], lti.C[:, :n], lti.D)


def _is_modal(layer: AbstractSSM) -> bool:
    return isinstance(layer, AbstractLinearSSM) and layer.is_modal


def _resized(layer: AbstractSSM, n: int) -> AbstractSSM:
    if not _is_modal(layer) or layer.d_state == n:
        return layer
    leaves, structure = jax.tree.flatten(layer)
    kinds = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
    resized = [
        x if x.shape == shape else _to_shape(np.asarray(x), shape)
        for x, shape in zip(leaves, _shapes_at(structure, kinds, n), strict=True)
    ]
    return structure.unflatten(resized)


def _to_shape(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` cut to this shape, or longer by copies of its last entries."""
    x = x[tuple(map(slice, shape))]
    more = [(0, new - old) for new, old in zip(shape, x.shape, strict=True)]
    return np.pad(x, more, mode="edge")


@lru_cache(maxsize=1024)
def _shapes_at(
    structure: Any, kinds: tuple[jax.ShapeDtypeStruct, ...], n: int
) -> list[tuple[int, ...]]:
    """The shapes of the leaves of such a layer with `n` states."""
    layer = eqx.filter_eval_shape(lambda layer: of_size(layer, n), structure.unflatten(kinds))
    return [x.shape for x in jax.tree.leaves(layer)]
