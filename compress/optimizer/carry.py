"""Carry the optimizer's state across a shrink.

The class of the state around an array declares its meaning (`compress.optimizer.registry`,
`compress.optimizer.find`). It is never inferred from numbers. Counts, schedules, and everything
outside the layers that are cut stay unchanged; so do fields that do not act on the states (D).

In mode "transport" moments go into the new coordinates (`compress.optimizer.transport`). "reset"
gives them the values of a fresh state: zero or, for kinds that cannot be zero, their smallest value
or average. "slice" keeps the first entries. Copies of parameters are layers of their own, cut as
the parameters were, in every mode; with "reset", stored initial parameters become those of the
layer after its cut.

Parameters that a layer has only after its cut (`compress.optimizer.added`) begin with no average of
gradients, and with squares that are those of a parameter beside them, scaled.

Arrays that cannot be carried become zero: memories with further axes, sums over some of the axes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from zoo import AbstractSSM
from zoo.typing import checked

from ..cut import AbstractCut, Leaves
from ..model.layers import KeyPath, path_name, replace_layers
from ..numerics.precision import is_inexact, narrow_array
from .added import added_part
from .find import Tree, find
from .layouts import multiplied_out, put_together
from .restart import check_shared, restarted
from .transport import least, transport

MODES = ("transport", "reset", "slice")

CLOSE = 0.5
"""Largest distance of a copy from the parameters, as a share of their size, if only its place marks
it as a copy."""


@checked
def carry(
    opt_state: PyTree,
    layers: Mapping[KeyPath, AbstractSSM],
    cuts: Mapping[KeyPath, AbstractCut],
    mode: str = "transport",
) -> PyTree:
    """`opt_state` for the model whose layers at the key paths of `cuts` were cut.

    `layers` are all layers of the model before, by key path. ValueError if the state is of another
    model, if no layer is found in it, or if moments fit several layers equally well; with
    "transport" also if the meaning of a field is not declared, if a state is one of those that
    cannot be carried, and if a layer's parameters do not act entry by entry on its system
    (`compress.linear.jacobian`).
    """
    found = find(opt_state, layers, cuts, mode)
    if mode == "transport":
        check_shared(opt_state, found, layers)
    replaced = {}
    for owner, cut in cuts.items():
        trees = [tree for tree in found if tree.owner == owner]
        structure = jax.tree.structure(cut.after)
        for keys, parts in _carry_layer(trees, cut, mode).items():
            replaced[keys] = structure.unflatten(parts)
    if not replaced:
        return opt_state
    return restarted(replace_layers(opt_state, replaced), found, mode)


def _carry_layer(trees: list[Tree], cut: AbstractCut, mode: str) -> dict[KeyPath, list[Any]]:
    """The new parts of all moments of one layer, by key path."""
    before, after = jax.tree.leaves(cut.before), jax.tree.leaves(cut.after)
    kept = after[: len(before)]
    trees, whole = multiplied_out(trees, before)
    values = transport(trees, cut) if mode == "transport" else {}
    for tree in trees:
        fixed = _fixed(tree, cut, mode)
        if fixed is not None:
            values[tree.keys] = fixed
    done = {}
    for tree in trees:
        own = values.get(tree.keys, {})
        first = mode == "slice" and tree.meaning != "reset"
        done[tree.keys] = [
            _new_part(part, old, new, own.get(k), _first(cut, k) if first else _zeros)
            for k, (part, old, new) in enumerate(zip(tree.parts, before, kept, strict=True))
        ]
    new = after[len(before) :]
    for tree in trees:
        done[tree.keys] += [
            added_part(tree, trees, before, each, x, mode)
            for each, x in zip(cut.added, new, strict=True)
        ]
    put_together(whole, done, before, cut.added)
    return done


def _fixed(tree: Tree, cut: AbstractCut, mode: str) -> Leaves | None:
    """Values that do not depend on the mode, or that must not be zero."""
    leaves = jax.tree.leaves(cut.before)
    if (
        tree.meaning == "parameter"
        or (tree.meaning == "start" and mode != "reset")
        or (tree.meaning == "displaced" and mode != "transport")
    ):
        arrays = tree.arrays(leaves)
        if not tree.field:
            _check_copy(tree, arrays, leaves)
        return cut.copies(arrays)
    if mode != "reset":
        return None
    arrays, after = tree.arrays(leaves), jax.tree.leaves(cut.after)
    if tree.meaning == "start":
        return {k: np.asarray(after[k]) for k in arrays}
    if tree.meaning in ("square_sum", "maximum"):
        smallest = least(arrays)
        return {k: np.full(after[k].shape, smallest) for k in arrays if _changes(k, cut)}
    if tree.meaning in ("step", "step_square"):
        return transport([tree], cut)[tree.keys]
    return None


def _check_copy(tree: Tree, arrays: Leaves, leaves: list[Any]) -> None:
    distance = sum(float(np.sum((x - np.asarray(leaves[k])) ** 2)) for k, x in arrays.items())
    size = sum(float(np.sum(np.asarray(leaves[k], np.float64) ** 2)) for k in arrays)
    if distance > CLOSE**2 * size:
        raise ValueError(
            f"opt_state: {path_name(tree.keys) or 'it'} stands in no state of an optimizer, so it "
            "must be a copy or an average of the parameters, got one further from them than "
            f"{CLOSE:g} of their size (divide sums by their number, and put other moments in a "
            "class that `compress.register_state` knows)"
        )


def _changes(k: int, cut: AbstractCut) -> bool:
    return np.shape(jax.tree.leaves(cut.before)[k]) != np.shape(jax.tree.leaves(cut.after)[k])


def _first(cut: AbstractCut, k: int) -> Callable[..., Any]:
    return lambda x, _: cut.first_entries(k, x)


def _new_part(part: Any, old: Any, new: Any, value: Any, resize: Callable[..., Any]) -> Any:
    """`part`, which belongs to a parameter `old` that is now `new`; `value` if it was carried."""
    if value is not None:
        return narrow_array(value, part)
    if not is_inexact(old) or old.shape == new.shape:
        return part
    return jax.tree.map(lambda x: _resized(x, old.shape, new.shape, resize), part)


def _resized(x: Any, old: tuple[int, ...], new: tuple[int, ...], resize: Callable[..., Any]) -> Any:
    if np.shape(x) == old:
        return resize(x, new)
    if np.size(x) <= 1:
        return x
    shape = np.shape(x)
    extra = len(shape) - len(old)
    if extra > 0 and shape[extra:] == old:
        return _zeros(x, shape[:extra] + new)
    sizes = dict(zip(shape, shape, strict=True))
    sizes |= {a: b for a, b in zip(old, new, strict=True) if a != b}
    return _zeros(x, tuple(sizes[size] for size in shape))


def _zeros(x: Any, shape: tuple[int, ...]) -> Any:
    return narrow_array(np.zeros(shape), x)
