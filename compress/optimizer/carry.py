"""Carry the optimizer's state across a shrink.

**What is found.** Wherever an optax state holds a tree like the parameters, it holds nodes of the
layers' own classes, with moments as their leaves. They are found by that and not by the name of the
optimizer, so masked, chained, injected and per-group states are all the same. A node belongs to the
layer with which it shares the longest end of its key path; of several such, with which it shares
most keys, and then the longest start. Counts, schedules, and all that lies outside the layers that
are cut stay as they are; so do fields that do not act on the states (D).

**What it is** is told by its numbers, and by the field of the state that holds it:

- copies of parameters: the names in `COPIES`, all names with "param" in them, and whatever lies
  as close to the layer's parameters as an average of them would;
- gradients, or what is linear in them: the names in `GRADIENTS`, and whatever else has a negative
  number;
- squares of gradients: else.

**How it is carried** in mode "transport". Gradients go through the adjoint of the lift of a change
of the reduced layer to the full one, as the cut knows it (`compress.linear.cut`,
`compress.selective.cut`). Squares go through the squares of the same coefficients, as if gradients
of different entries were uncorrelated, and are raised where needed so that no entry's |gradient| /
sqrt(square) exceeds the largest one before. Fields that are masked out count as having gradient
zero. "reset" makes both zero, "slice" keeps the first entries. Copies of parameters are layers of
their own, cut as the parameters were, in every mode.

**What cannot be carried** becomes zero: memories with further axes, sums over some of the axes. The
factored squares of Adafactor are multiplied out, carried, and factored again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import PyTree

from zoo import AbstractSSM
from zoo.typing import checked

from ..cut import AbstractCut, Leaves
from ..model.layers import KeyPath, layers_of, path_name, replace_layers
from ..numerics.precision import is_inexact, narrow_array
from . import adafactor as factored

MODES = ("transport", "reset", "slice")
Kind = Literal["gradients", "squares", "parameters"]

COPIES = {"z", "x0", "init_particles", "slow"}
"""Fields of optax's states that hold parameters and do not say so."""

GRADIENTS = {"mu", "trace", "m", "acc_grads"}
"""Fields that hold gradients, or what is linear in them, also where none is negative."""


@checked
def carry(
    opt_state: PyTree,
    layers: Mapping[KeyPath, AbstractSSM],
    cuts: Mapping[KeyPath, AbstractCut],
    mode: str = "transport",
) -> PyTree:
    """`opt_state` for the model whose layers at the key paths of `cuts` were cut.

    `layers` are all layers of the model before, by key path. ValueError if moments have the shapes
    of another model, or fit several layers equally well; with "transport" also if a layer's
    parameters do not act entry by entry on its system (`compress.linear.jacobian`).
    """
    found = _find(opt_state, layers, cuts)
    replaced = {}
    for owner, cut in cuts.items():
        trees = [tree for tree in found if tree.owner == owner]
        structure = jax.tree.structure(cut.after)
        for keys, parts in _carry_layer(trees, cut, mode).items():
            replaced[keys] = structure.unflatten(parts)
    return replace_layers(opt_state, replaced) if replaced else opt_state


@dataclass(frozen=True)
class _Moments:
    """A tree like a layer's parameters, inside the optimizer's state."""

    keys: KeyPath
    owner: KeyPath
    """The layer's key path in the model."""
    field: str
    """The field of the state that holds it, "" if none has a name."""
    state: KeyPath
    """The key path of what has that field."""
    parts: list[Any]
    """By the places of the layer's leaves: an array, or what stands in its stead."""


def _find(
    opt_state: PyTree, layers: Mapping[KeyPath, AbstractSSM], cuts: Mapping[KeyPath, AbstractCut]
) -> list[_Moments]:
    found = []
    for keys, node in layers_of(opt_state):
        owners, shared = _owners(keys, node, layers)
        if not any(owner in cuts for owner in owners):
            continue
        if len(owners) > 1:
            names = " and ".join(map(path_name, owners))
            raise ValueError(f"opt_state: {path_name(keys)} fits {names} equally well")
        outer = keys[: len(keys) - shared]
        at = max((k for k, key in enumerate(outer) if _name(key)), default=None)
        found.append(
            _Moments(
                keys=keys,
                owner=owners[0],
                field="" if at is None else _name(outer[at]),
                state=outer[:at],
                parts=_parts(keys, node, layers[owners[0]]),
            )
        )
    return found


def _owners(
    keys: KeyPath, node: AbstractSSM, layers: Mapping[KeyPath, AbstractSSM]
) -> tuple[list[KeyPath], int]:
    """The layers whose paths fit best, and how many keys at the paths' ends are the same."""
    scores = {
        path: (
            _common_start(keys[::-1], path[::-1]),
            _common_keys(keys, path),
            _common_start(keys, path),
        )
        for path, layer in layers.items()
        if type(layer) is type(node)
    }
    best = max(scores.values(), default=(0, 0, 0))
    return [path for path, score in scores.items() if score == best], best[0]


def _common_start(a: KeyPath, b: KeyPath) -> int:
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    return same


def _common_keys(keys: KeyPath, path: KeyPath) -> int:
    """How many keys of `path` occur in `keys`, in their order."""
    found, start = 0, 0
    for key in path:
        if key in keys[start:]:
            start += keys[start:].index(key) + 1
            found += 1
    return found


def _name(key: Any) -> str:
    """The name of a field; keys of dicts are the user's, and say nothing of what is there."""
    return key.name if isinstance(key, jax.tree_util.GetAttrKey) else ""


def _parts(keys: KeyPath, node: AbstractSSM, layer: AbstractSSM) -> list[Any]:
    leaves, treedef = jax.tree.flatten(layer)
    try:
        parts = treedef.flatten_up_to(node)
    except ValueError:
        raise ValueError(
            f"opt_state: {path_name(keys)} is not like the model's {type(layer).__name__} there"
        ) from None
    for part, x in zip(parts, leaves, strict=True):
        if is_inexact(part) and part.ndim == x.ndim and part.size > 1 and part.shape != x.shape:
            raise ValueError(
                f"opt_state: {path_name(keys)} holds an array of shape {part.shape} for a "
                f"parameter of shape {x.shape}, it belongs to another model"
            )
    return parts


def _carry_layer(trees: list[_Moments], cut: AbstractCut, mode: str) -> dict[KeyPath, list[Any]]:
    """The new parts of all moments of one layer, by key path."""
    before, after = jax.tree.leaves(cut.before), jax.tree.leaves(cut.after)
    factors = _factored(trees)
    trees = [tree for tree in trees if not any(tree in triple for triple in factors)]
    trees += [_multiplied_out(triple, before) for triple in factors]
    values = _transport(trees, cut) if mode == "transport" else {}
    values |= {
        tree.keys: cut.copies(_arrays(tree, before))
        for tree in trees
        if _kind(tree, before) == "parameters"
    }
    resizes = [
        (lambda x, _, k=k: cut.first_entries(k, x)) if mode == "slice" else _zeros
        for k in range(len(before))
    ]
    done = {
        tree.keys: [
            _new_part(part, old, new, values.get(tree.keys, {}).get(k), resizes[k])
            for k, (part, old, new) in enumerate(zip(tree.parts, before, after, strict=True))
        ]
        for tree in trees
    }
    for triple in factors:
        done |= _factored_again(triple, done[triple[-1].keys], before)
    return done


def _kind(tree: _Moments, leaves: list[Any]) -> Kind:
    """What the moments are (see the module)."""
    if tree.field in COPIES or "param" in tree.field:
        return "parameters"
    arrays = _arrays(tree, leaves)
    distance = sum(float(np.sum((x - np.asarray(leaves[k])) ** 2)) for k, x in arrays.items())
    size = sum(float(np.sum(np.asarray(leaves[k], np.float64) ** 2)) for k in arrays)
    if distance < CLOSE**2 * size:
        return "parameters"
    if tree.field in GRADIENTS or any(np.any(x < 0) for x in arrays.values()):
        return "gradients"
    return "squares"


CLOSE = 0.5
"""Distance of a copy of the parameters from them, at most, as a share of their size."""


def _arrays(tree: _Moments, leaves: list[Any]) -> Leaves:
    """The parts that have the shape of the parameter at the same place."""
    return {
        k: np.asarray(part).astype(np.float64)
        for k, (part, x) in enumerate(zip(tree.parts, leaves, strict=True))
        if is_inexact(part) and part.shape == x.shape
    }


def _new_part(part: Any, old: Any, new: Any, value: Any, resize: Callable[..., Any]) -> Any:
    """`part`, which belongs to a parameter `old` that is now `new`; `value` if it was carried."""
    if value is not None:
        return narrow_array(value, part)
    if not is_inexact(old) or old.shape == new.shape:
        return part
    if isinstance(part, list | tuple) and [np.shape(x) for x in part] == [(n,) for n in old.shape]:
        # one array for each axis (SM3)
        return type(part)(_zeros(x, (n,)) for x, n in zip(part, new.shape, strict=True))
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


@dataclass(frozen=True)
class _Group:
    """Moments of one kind that together cover a layer, one tree or one of each parameter group."""

    trees: list[_Moments]
    arrays: Leaves

    @property
    def states(self) -> set[KeyPath]:
        return {tree.state for tree in self.trees}


def _groups(trees: Sequence[_Moments], leaves: list[Any]) -> list[_Group]:
    """Trees of the same field whose arrays complement one another, put together."""
    groups: list[_Group] = []
    for tree in trees:
        arrays = _arrays(tree, leaves)
        for k, group in enumerate(groups):
            if group.trees[0].field == tree.field and not group.arrays.keys() & arrays.keys():
                groups[k] = _Group([*group.trees, tree], group.arrays | arrays)
                break
        else:
            groups.append(_Group([tree], arrays))
    return groups


def _transport(trees: list[_Moments], cut: AbstractCut) -> dict[KeyPath, Leaves]:
    """Gradients and squares of the layer after the cut, by the key path of the tree."""
    leaves = jax.tree.leaves(cut.before)
    kinds = [_kind(tree, leaves) for tree in trees]
    gradients, squares = (
        _groups([t for t, k in zip(trees, kinds, strict=True) if k == kind], leaves)
        for kind in ("gradients", "squares")
    )
    if not (gradients or squares):
        return {}
    values: dict[KeyPath, Leaves] = {}
    moved: list[tuple[_Group, Leaves]] = []
    for group in gradients:
        new = cut.gradients(group.arrays)
        moved.append((group, new))
        values |= {tree.keys: _own(new, tree, leaves) for tree in group.trees}
    for group in squares:
        new = cut.squares(group.arrays)
        for other, gradient in moved:
            if other.states & group.states:
                new = _raised(new, gradient, _largest_ratio(other.arrays, group.arrays))
        values |= {tree.keys: _own(new, tree, leaves) for tree in group.trees}
    return values


def _own(values: Leaves, tree: _Moments, leaves: list[Any]) -> Leaves:
    """Of the values for a layer, those that this tree has room for."""
    return {k: values[k] for k in _arrays(tree, leaves) if k in values}


def _largest_ratio(gradients: Leaves, squares: Leaves) -> float:
    """The largest gradient^2 / square of all entries."""
    ratios = [
        gradients[k][squares[k] > 0] ** 2 / squares[k][squares[k] > 0]
        for k in gradients.keys() & squares.keys()
    ]
    return max((float(np.max(ratio)) for ratio in ratios if ratio.size), default=0.0)


def _raised(squares: Leaves, gradients: Leaves, ratio: float) -> Leaves:
    """`squares`, no less than gradients^2 / ratio."""
    if ratio <= 0:
        return squares
    return {k: np.maximum(x, gradients[k] ** 2 / ratio) for k, x in squares.items()}


Triple = tuple[_Moments, _Moments, _Moments]


def _factored(trees: list[_Moments]) -> list[Triple]:
    """Factored squares: `v_row`, `v_col` and `v` of one state."""
    by_state: dict[KeyPath, dict[str, _Moments]] = {}
    for tree in trees:
        by_state.setdefault(tree.state, {})[tree.field] = tree
    wanted = set(factored.FIELDS)
    return [
        (fields["v_row"], fields["v_col"], fields["v"])
        for fields in by_state.values()
        if wanted <= fields.keys()
    ]


def _multiplied_out(triple: Triple, leaves: list[Any]) -> _Moments:
    parts = []
    for row, col, v, x in zip(*(tree.parts for tree in triple), leaves, strict=True):
        if is_inexact(v) and v.shape != x.shape:
            squares = factored.multiply_out(np.asarray(row), np.asarray(col), x.shape)
            v = narrow_array(squares, v)
        parts.append(v)
    return replace(triple[-1], parts=parts)


def _factored_again(triple: Triple, new: list[Any], leaves: list[Any]) -> dict[KeyPath, list[Any]]:
    old = [(v, x.shape) for v, x in zip(triple[-1].parts, leaves, strict=True) if is_inexact(v)]
    min_size = factored.min_size(
        [shape for v, shape in old if v.shape != shape],
        [shape for v, shape in old if v.shape == shape],
    )
    parts = []
    for row, col, v, squares in zip(*(tree.parts for tree in triple), new, strict=True):
        if is_inexact(v) and factored.is_factored(squares.shape, min_size):
            new_row, new_col = factored.factor(np.asarray(squares))
            row, col = narrow_array(new_row, row), narrow_array(new_col, col)
            squares = narrow_array(np.zeros(1), v)
        elif is_inexact(v):
            row, col = narrow_array(np.zeros(1), row), narrow_array(np.zeros(1), col)
        parts.append((row, col, squares))
    return {
        tree.keys: list(column)
        for tree, column in zip(triple, zip(*parts, strict=True), strict=True)
    }
