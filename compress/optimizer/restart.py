"""What a cut means for a whole state: where it begins anew, and where its class says too little."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import GetAttrKey
from jaxtyping import PyTree

from zoo import AbstractSSM

from ..model.layers import KeyPath, path_name
from ..numerics.precision import is_inexact, narrow_array
from .find import Tree, walk_to
from .registry import declaration

MAXIMUM = 1.1
"""How far an average of gradients may exceed their decaying maximum: (1 - b1) / (1 - b1 / b2) for
the usual rates."""

SQUARE = 1e4
"""How far the square of an average of gradients may exceed the average of their squares: (1 - b1)^2
/ ((1 - b2) (1 - b1^2 / b2)), which is 53 for the usual rates."""


def restarted(opt_state: PyTree, found: Sequence[Tree], mode: str) -> PyTree:
    """`opt_state` with what is not the layers' own: losses that are known no more, and counts."""
    for keys in dict.fromkeys(tree.state for tree in found if tree.field):
        state = walk_to(opt_state, keys)
        declared = declaration(state)
        if declared is None:
            continue
        if declared.restarts and mode == "reset":
            new = jax.tree.map(lambda x: narrow_array(np.zeros(np.shape(x)), x), state)
            opt_state = replaced_at(opt_state, keys, new)
        losses = [name for name, meaning in declared.fields.items() if meaning == "loss"]
        for name in losses:
            x = getattr(state, name)
            unknown = narrow_array(np.full(np.shape(x), np.inf), x) if is_inexact(x) else np.inf
            opt_state = replaced_at(opt_state, (*keys, GetAttrKey(name)), unknown)
    return opt_state


def replaced_at(tree: PyTree, keys: KeyPath, node: Any) -> PyTree:
    """`tree` with `node` at this key path."""
    old = walk_to(tree, keys)
    paths, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is old)
    return structure.unflatten([node if path == keys else x for path, x in paths])


def check_shared(
    opt_state: PyTree, found: Sequence[Tree], layers: Mapping[KeyPath, AbstractSSM]
) -> None:
    """ValueError where a state may be of another transformation that shares its class.

    `optax.adam` keeps averages of squares in the field where `optax.adamax` keeps maxima. A maximum
    is never less than the average of gradients beside it: a state with an entry where it is has
    squares there, as declared. And the average of squares is never much less than the square of the
    average: where it is, this is one of updates (`optax.contrib.adopt`).
    """
    for keys in dict.fromkeys(tree.state for tree in found if tree.field):
        declared = declaration(walk_to(opt_state, keys))
        if declared is None or not declared.shared:
            continue
        pairs = _pairs([tree for tree in found if tree.state == keys], layers)
        name = path_name(keys) or "it"
        if any(nu.size for _, nu in pairs) and all(np.all(x <= MAXIMUM * nu) for x, nu in pairs):
            raise ValueError(
                f"opt_state: {name} may be of `optax.adam` or of `optax.adamax`, whose states are "
                f'of one class: call {_DECLARE}, nu=...)` before, with "square" for Adam and '
                '"maximum" for Adamax'
            )
        if any(np.any(x**2 > SQUARE * nu) for x, nu in pairs):
            raise ValueError(
                f"opt_state: {name} holds averages that are too large to be of gradients with such "
                "squares, as those of `optax.contrib.adopt` are, whose states are of the same class"
                f" as Adam's: call {_DECLARE.replace('gradient', 'update')}, "
                'nu="square")` before, or give moments="reset"'
            )


_DECLARE = '`compress.register_state(optax.ScaleByAdamState, count="scalar", mu="gradient"'


def _pairs(trees: Sequence[Tree], layers: Mapping[KeyPath, AbstractSSM]) -> list[Any]:
    """Of Adam's `mu` and `nu`, the entries where the second is no zero, nor close to underflow."""
    fields: dict[str, dict[Any, Any]] = {"mu": {}, "nu": {}}
    for tree in trees:
        arrays = tree.arrays(jax.tree.leaves(layers[tree.owner]))
        fields[tree.field].update({(tree.owner, k): x for k, x in arrays.items()})
    both = [(x, fields["nu"][k]) for k, x in fields["mu"].items() if k in fields["nu"]]
    return [(np.abs(mu[nu > 1e-30]), nu[nu > 1e-30]) for mu, nu in both]
