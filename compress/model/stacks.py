"""Stacks: layers made by `vmap` and run by `scan`, whose arrays have an additional leading axis.

Compression takes a stack apart, cuts each of its layers to one common rank, and puts them together
again; the same with an optimizer's state of it.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import AbstractArray, PyTree

from zoo import AbstractSSM

from ..numerics.precision import is_inexact, narrow_array
from .layers import KeyPath, layers_of, path_name, replace_layers


@jax.tree_util.register_pytree_with_keys_class
class Members:
    """The layers of a stack, one by one. Stands in a tree where the stack stood."""

    def __init__(self, layers: tuple[Any, ...]):
        self.layers = layers

    def tree_flatten_with_keys(self):
        keys = (jax.tree_util.SequenceKey(k) for k in range(len(self.layers)))
        return tuple(zip(keys, self.layers, strict=True)), None

    @classmethod
    def tree_unflatten(cls, _: None, layers: Any) -> "Members":
        return cls(tuple(layers))


def stack_size(layer: AbstractSSM) -> int | None:
    """The number of layers in the stack `layer`; None for a single layer.

    A stack's fields have one axis more than its class says. ValueError for more than one.
    """
    leading: set[tuple[int, ...]] = set()
    for field in fields(layer):
        kind, x = field.type, getattr(layer, field.name)
        if not (isinstance(kind, type) and issubclass(kind, AbstractArray)):
            continue
        if "*" in kind.dim_str or "..." in kind.dim_str or not hasattr(x, "shape"):
            continue
        leading.add(tuple(x.shape[: max(0, len(x.shape) - len(kind.dims))]))
    leading.discard(())
    if not leading:
        return None
    if len(leading) > 1 or len(next(iter(leading))) > 1:
        axes = " and ".join(map(str, sorted(leading)))
        raise ValueError(
            f"a {type(layer).__name__} must be a single layer or a stack along one axis, got "
            f"leading axes {axes}"
        )
    return next(iter(leading))[0]


def stacks_of(tree: PyTree) -> dict[KeyPath, int]:
    """The stacks in `tree`, and how many layers each holds."""
    sizes = {keys: stack_size(layer) for keys, layer in layers_of(tree)}
    return {keys: size for keys, size in sizes.items() if size is not None}


def unstacked(tree: PyTree) -> PyTree:
    """`tree` with the layers of each stack one by one, as `Members`; itself where it has none."""
    stacks = stacks_of(tree)
    if not stacks:
        return tree
    layers = dict(layers_of(tree))
    return replace_layers(tree, {keys: _members(layers[keys], n) for keys, n in stacks.items()})


def _members(layer: AbstractSSM, size: int) -> Members:
    arrays, static = eqx.partition(layer, _is_stacked)
    arrays = jax.tree.map(np.asarray, arrays)
    parts = [jax.tree.map(lambda x, k=k: x[k], arrays) for k in range(size)]
    return Members(tuple(eqx.combine(part, static) for part in parts))


def restacked(tree: PyTree, before: PyTree) -> PyTree:
    """`tree` with stacks again where `before`, which it was made from, has them.

    Dtypes and placement are those of `before`; a stack without a cut stays the same object.
    """
    stacks = stacks_of(before)
    if not stacks:
        return tree
    old = dict(layers_of(before))
    taken = dict(layers_of(unstacked(before)))
    nodes, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_members)
    return structure.unflatten(
        [
            _together(node, old[keys], keys, taken) if isinstance(node, Members) else node
            for keys, node in nodes
        ]
    )


def _together(members: Members, old: Any, keys: KeyPath, taken: Mapping[KeyPath, Any]) -> Any:
    was = [taken[(*keys, jax.tree_util.SequenceKey(k))] for k in range(len(members.layers))]
    if all(_same(a, b) for a, b in zip(members.layers, was, strict=True)):
        return old
    leaves = [jax.tree.leaves(layer) for layer in members.layers]
    # what a cut has added comes last
    like = [*jax.tree.leaves(old), *leaves[0][len(jax.tree.leaves(old)) :]]
    structure = jax.tree.structure(members.layers[0])
    shapes = {tuple(x.shape for x in part if hasattr(x, "shape")) for part in leaves}
    if len(shapes) > 1:
        raise ValueError(
            f"{path_name(keys) or 'model'}: the layers of a stack must keep one number of states, "
            f"got {sorted({layer.d_state for layer in members.layers})}"
        )
    stacked = [
        narrow_array(np.stack([np.asarray(part[k]) for part in leaves]), x) if _is_stacked(x) else x
        for k, x in enumerate(like)
    ]
    return structure.unflatten(stacked)


def _same(a: AbstractSSM, b: AbstractSSM) -> bool:
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.shape(x) == np.shape(y) and np.array_equal(x, y) for x, y in pairs)


def _is_stacked(x: Any) -> bool:
    return is_inexact(x) and x.ndim > 0


def _is_members(x: Any) -> bool:
    return isinstance(x, Members | eqx.nn.State)
