"""Effects of a cut on a whole state: parts that begin anew, and checks that its numbers fit its
declaration.
"""

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

GROWTH = 0.8
"""The power of `nu` with which `mu` grows from entry to entry, above which `nu` are maxima: it was
0.46 to 0.70 with Adam and 0.91 to 1.57 with Adamax, in LRU, S5 and S4D, over losses scaled by 1e-3
to 1e4 and 5 to 200 steps."""

ENTRIES = 12
"""The fewest entries from which the power is estimated."""

SQUARE = 1e4
"""How far the square of an average of gradients may exceed the average of their squares: (1 - b1)^2
/ ((1 - b2) (1 - b1^2 / b2)), which is 53 for the usual rates."""


def restarted(opt_state: PyTree, found: Sequence[Tree], mode: str) -> PyTree:
    """`opt_state` after changes outside the layers: unknown losses become infinite, and restarted
    states zero."""
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
    """ValueError where the numbers of a state contradict what its class declares.

    `optax.ScaleByAdamState` is declared as Adam's, and `optax.adamax` and `optax.contrib.adopt`
    have it too. Adamax keeps maxima of |gradient| in the field of the squares. A maximum is never
    less than the average of gradients beside it, and the two grow in proportion from entry to
    entry; an average of gradients grows with the root of Adam's squares. A state is refused where
    both point to maxima. Adopt's averages are of updates: their squares may exceed those beside
    them by more than any average of gradients does.
    """
    for keys in dict.fromkeys(tree.state for tree in found if tree.field):
        declared = declaration(walk_to(opt_state, keys))
        if declared is None or not declared.shared:
            continue
        pairs = _pairs([tree for tree in found if tree.state == keys], layers)
        name = path_name(keys) or "it"
        if all(np.all(mu <= MAXIMUM * nu) for mu, nu in pairs) and _growth(pairs) > GROWTH:
            raise ValueError(
                f"opt_state: {name} must be a state of `optax.adam`, got one that looks like that "
                f'of `optax.adamax`: call {_DECLARE}, nu="maximum")` before `compress` where it '
                f'is one, and {_DECLARE}, nu="square")` where it is of Adam'
            )
        if any(np.any(mu**2 > SQUARE * nu) for mu, nu in pairs):
            raise ValueError(
                f"opt_state: {name} must be a state of `optax.adam`, got averages that are too "
                "large to be of gradients with such squares, as those of `optax.contrib.adopt` "
                f"are: call {_DECLARE.replace('gradient', 'update')}, "
                'nu="square")` before `compress`, or pass moments="reset"'
            )


_DECLARE = '`compress.register_state(optax.ScaleByAdamState, count="scalar", mu="gradient"'


def _pairs(trees: Sequence[Tree], layers: Mapping[KeyPath, AbstractSSM]) -> list[Any]:
    """The entries of Adam's `mu` and `nu` where `nu` is neither zero nor close to underflow."""
    fields: dict[str, dict[Any, Any]] = {"mu": {}, "nu": {}}
    for tree in trees:
        arrays = tree.arrays(jax.tree.leaves(layers[tree.owner]))
        fields[tree.field].update({(tree.owner, k): x for k, x in arrays.items()})
    both = [(x, fields["nu"][k]) for k, x in fields["mu"].items() if k in fields["nu"]]
    return [(np.abs(mu[nu > 1e-30]), nu[nu > 1e-30]) for mu, nu in both]


def _growth(pairs: Sequence[Any]) -> float:
    """The power of `nu` with which `mu` grows, from the medians of the largest and smallest third
    of the entries; 0.5, Adam's, if these are too few or too similar."""
    mu = np.concatenate([np.ravel(x) for x, _ in pairs] or [np.zeros(0)])
    nu = np.concatenate([np.ravel(x) for _, x in pairs] or [np.zeros(0)])
    mu, nu = np.log(mu[mu > 0]), np.log(nu[mu > 0])
    if mu.size < ENTRIES:
        return 0.5
    order = np.argsort(nu)
    low, high = order[: mu.size // 3], order[-(mu.size // 3) :]
    spread = np.median(nu[high]) - np.median(nu[low])
    return float((np.median(mu[high]) - np.median(mu[low])) / spread) if spread > 0.7 else 0.5
