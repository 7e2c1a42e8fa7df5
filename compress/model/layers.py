"""Find the state-space layers of a pytree, and replace them."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from zoo import AbstractSSM

from ..numerics.precision import is_inexact

KeyPath = tuple[Any, ...]


def layers_of(tree: PyTree) -> list[tuple[KeyPath, AbstractSSM]]:
    """The `AbstractSSM` layers of `tree` with their key paths, in the order of its leaves."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_node)
    return [(keys, node) for keys, node in nodes if isinstance(node, AbstractSSM)]


def replace_layers(tree: PyTree, layers: Mapping[KeyPath, Any]) -> PyTree:
    """`tree` with these layers at these key paths, everything else as it is."""
    nodes, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_node)
    return treedef.unflatten([layers.get(keys, node) for keys, node in nodes])


def path_name(keys: KeyPath) -> str:
    """A key path in Python's notation: `blocks[0].ssm`."""
    return jax.tree_util.keystr(keys).removeprefix(".")


def check_parameters(keys: KeyPath, layer: AbstractSSM) -> None:
    """ValueError with the field's name if a parameter is NaN, infinite, traced or missing."""
    for inner, x in jax.tree_util.tree_flatten_with_path(layer)[0]:
        name = path_name((*keys, *inner))
        if not eqx.is_array_like(x):
            raise ValueError(
                f"{name} must be an array (with eqx.nn.Shared, layers can be tied as a whole, not "
                f"by their fields), got a {type(x).__name__}"
            )
        if not is_inexact(x):
            continue
        if isinstance(x, Tracer):
            raise ValueError(f"{name} is traced: shapes change here, so call this outside jit")
        bad = int(np.sum(~np.isfinite(np.asarray(x))))
        if bad:
            raise ValueError(f"{name} holds NaN or infinity in {bad} of its {x.size} entries")


def _is_node(x: Any) -> bool:
    # An eqx.nn.State may have been used up, and then refuses to be flattened.
    return isinstance(x, AbstractSSM | eqx.nn.State)
