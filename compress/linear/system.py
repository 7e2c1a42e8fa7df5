"""The system of a linear layer in double precision, and the way back.

Layers whose states stand along one axis of each field are padded with copies of their last state,
so that one compiled program serves many sizes (`compress.numerics.padding`).
"""

from typing import Any

import jax
import numpy as np

from zoo import AbstractLinearSSM, AbstractSSM, DiagonalLTI
from zoo.layers.base import as_linear, shapes_at

from ..numerics.padding import padded_size
from ..numerics.precision import jit_for_once, narrow, of_numpy, widen


def double_lti(layer: AbstractSSM) -> DiagonalLTI:
    """The layer's linear system, computed and kept in double precision (NumPy arrays)."""
    with jax.enable_x64(True):
        lti = jax.tree.map(np.asarray, _to_lti(widen(padded_layer(layer))))
    return first_of_system(lti, layer.d_state)


def from_double_lti(layer: AbstractSSM, lti: DiagonalLTI) -> AbstractSSM:
    """`layer.from_lti(lti)`, computed in double precision, in the layer's own kind of arrays."""
    with jax.enable_x64(True):
        wide = _from_lti(widen(padded_layer(layer)), widen(padded_system(layer, lti)))
        wide = of_numpy(wide)
        wide = first_of_layer(wide, lti.d_state)
    return narrow(wide, layer)


@jit_for_once
def _to_lti(layer: AbstractSSM) -> DiagonalLTI:
    return as_linear(layer).to_lti()


@jit_for_once
def _from_lti(layer: AbstractSSM, lti: DiagonalLTI) -> AbstractSSM:
    return as_linear(layer).from_lti(lti)


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
    resized = [
        x if x.shape == shape else _to_shape(np.asarray(x), shape)
        for x, shape in zip(leaves, shapes_at(layer, n), strict=True)
    ]
    return structure.unflatten(resized)


def _to_shape(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` cut to this shape, or longer by copies of its last entries."""
    x = x[tuple(map(slice, shape))]
    more = [(0, new - old) for new, old in zip(shape, x.shape, strict=True)]
    return np.pad(x, more, mode="edge")
