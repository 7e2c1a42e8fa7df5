"""The moments of one layer in the coordinates of the layer after its cut.

- Gradients go through the adjoint of the lift of a change of the reduced layer to the full one,
  given by the cut (`compress.linear.cut`, `compress.selective.cut`).
- Squares of gradients go through the squares of the same coefficients, as if gradients of different
  entries were uncorrelated, and are raised where needed so that no entry's |gradient| /
  sqrt(square) exceeds the largest one before. So do maxima, as roots of squares. A start that all
  entries share, as Adagrad has it, is left out and added again.
- Updates are gradients divided by their scale. They are multiplied by it, the root of the squares
  that they were divided by, carried as gradients, and divided by the scale after the cut. Their
  size does not depend on coordinates, so each array keeps its root mean square, or with Adafactor
  its share of the parameters'.
- Copies that lie a few steps from the parameters, as in schedule-free training, keep these steps.
  The steps are carried as gradients if the optimizer inside is linear in them, otherwise as
  updates. If the copy was cut like the parameters, its distance could be several times the
  optimizer's steps in the new coordinates.
- Step sizes have no direction: they are averaged along the axis that becomes shorter.

Masked fields count as gradients of zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ..cut import AbstractCut, Leaves
from ..model.layers import KeyPath
from .find import Tree

SQUARES = ("square", "square_sum", "maximum", "curvature")
AFTER_SCALING = {
    "gradient": "update",
    "square": "step_square",
    "square_sum": "step_square",
    "maximum": "step",
    "curvature": "step_square",
}
"""The meaning of a field if its inputs are updates instead of gradients."""


@dataclass(frozen=True)
class _Group:
    """Moments of one kind that together cover a layer, one tree or one of each parameter group."""

    trees: list[Tree]
    arrays: Leaves

    @property
    def states(self) -> set[KeyPath]:
        return {tree.state for tree in self.trees}

    def overlaps(self, arrays: Leaves) -> bool:
        return bool(self.arrays.keys() & arrays.keys())


@dataclass(frozen=True)
class _Squares:
    """A group of squares before the cut and after it."""

    group: _Group
    before: Leaves
    after: Leaves


def transport(trees: Sequence[Tree], cut: AbstractCut) -> dict[KeyPath, Leaves]:
    """The layer's moments after the cut, by the key path of the tree."""
    leaves, after = jax.tree.leaves(cut.before), jax.tree.leaves(cut.after)
    displaced = [tree.keys for tree in trees if tree.meaning == "displaced"]
    trees = [_steps_away(tree, trees, leaves) for tree in trees]
    trees = [as_comes_in(tree, trees, leaves) for tree in trees]
    values: dict[KeyPath, Leaves] = {}
    moved: list[tuple[_Group, Leaves]] = []
    for group in _groups(trees, leaves, ("gradient",)):
        new = cut.gradients(group.arrays)
        moved.append((group, new))
        values |= {tree.keys: _own(new, tree, leaves) for tree in group.trees}
    scales = []
    for group in _groups(trees, leaves, SQUARES):
        scales.append(_squares(group, moved, cut))
        new = _as_meant(scales[-1])
        values |= {tree.keys: _own(new, tree, leaves) for tree in group.trees}
    for group in _groups(trees, leaves, ("update",)):
        new = _updates(group, scales, cut)
        values |= {tree.keys: _own(new, tree, leaves) for tree in group.trees}
    for keys in displaced:
        values[keys] = {k: x + np.asarray(after[k]) for k, x in values[keys].items()}
    for tree in trees:
        if tree.meaning in ("step", "step_square"):
            power = 2 if tree.meaning == "step" else 1
            arrays = tree.arrays(leaves)
            values[tree.keys] = {
                k: _averaged(x, np.shape(after[k]), power) for k, x in arrays.items()
            }
    return values


def _steps_away(tree: Tree, trees: Sequence[Tree], leaves: list) -> Tree:
    """A displaced copy as its steps from the parameters, other trees as they are."""
    if tree.meaning != "displaced":
        return tree
    places, depth = tree.places(leaves), len(tree.state)
    rescaled = any(
        other.declared.rescales
        and other.keys[:depth] == tree.state
        and places & other.places(leaves)
        for other in trees
    )
    steps = {k: x - np.asarray(leaves[k], np.float64) for k, x in tree.arrays(leaves).items()}
    parts = [steps.get(k, part) for k, part in enumerate(tree.parts)]
    return replace(tree, meaning="update" if rescaled else "gradient", parts=parts)


def as_comes_in(tree: Tree, trees: Sequence[Tree], leaves: list) -> Tree:
    """The tree with the meaning for updates if it stands after a transformation that rescales."""
    meaning = AFTER_SCALING.get(tree.meaning)
    if meaning is None:
        return tree
    before = (other for other in trees if other.declared.rescales and tree.comes_after(other))
    if any(tree.places(leaves) & other.places(leaves) for other in before):
        return replace(tree, meaning=meaning)
    return tree


def _groups(trees: Sequence[Tree], leaves: list, meanings: tuple[str, ...]) -> list[_Group]:
    """Trees of the same field whose arrays complement one another, put together."""
    groups: list[_Group] = []
    for tree in trees:
        if tree.meaning not in meanings:
            continue
        arrays = tree.arrays(leaves)
        for k, group in enumerate(groups):
            first = group.trees[0]
            alike = (first.field, first.meaning) == (tree.field, tree.meaning)
            if alike and not group.overlaps(arrays):
                groups[k] = _Group([*group.trees, tree], group.arrays | arrays)
                break
        else:
            groups.append(_Group([tree], arrays))
    return groups


def _own(values: Leaves, tree: Tree, leaves: list) -> Leaves:
    """The values for a layer at the places that this tree has."""
    return {k: values[k] for k in tree.places(leaves) if k in values}


NOTHING = 1e-9
"""Share of the mean square of an array below which an entry counts as zero."""


def _squares(group: _Group, moved: list[tuple[_Group, Leaves]], cut: AbstractCut) -> _Squares:
    """Squares of gradients, for all layouts of the field."""
    meaning = group.trees[0].meaning
    arrays = group.arrays
    if meaning == "maximum":
        arrays = {k: x**2 for k, x in arrays.items()}
    start = least(arrays) if meaning == "square_sum" else 0.0
    new = cut.squares({k: x - start for k, x in arrays.items()} if start else arrays)
    if meaning != "curvature":
        for other, gradient in moved:
            if other.states & group.states:
                new = _raised(new, gradient, _largest_ratio(other.arrays, arrays))
    if any(tree.declared.lags for tree in group.trees):
        new = {k: _without_zeros(x) for k, x in new.items()}
    if start:
        new = {k: x + start for k, x in new.items()}
    return _Squares(group, arrays, new)


def _without_zeros(squares: np.ndarray) -> np.ndarray:
    """`squares` with the mean instead of negligible entries: the angle of a real mode has no
    square yet, but will have a gradient."""
    mean = np.mean(squares)
    return np.where(squares < NOTHING * mean, mean, squares)


def _as_meant(squares: _Squares) -> Leaves:
    if squares.group.trees[0].meaning == "maximum":
        return {k: np.sqrt(x) for k, x in squares.after.items()}
    return squares.after


def least(arrays: Leaves) -> float:
    """The smallest number of all arrays."""
    return min((float(np.min(x)) for x in arrays.values() if x.size), default=0.0)


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


def _updates(group: _Group, scales: list[_Squares], cut: AbstractCut) -> Leaves:
    """Updates, carried through the gradients that they were made of."""
    scale = _scale_of(group, scales)
    before, after = ({}, {}) if scale is None else (scale.before, scale.after)
    relative = scale is not None and any(tree.declared.relative for tree in scale.group.trees)
    parameters = jax.tree.leaves(cut.before), jax.tree.leaves(cut.after)
    arrays = {k: x * np.sqrt(np.maximum(before.get(k, 1.0), 0)) for k, x in group.arrays.items()}
    new = {}
    for k, gradient in cut.gradients(arrays).items():
        if k not in group.arrays:
            continue
        old = group.arrays[k]
        largest = max(float(np.max(np.abs(old))), np.finfo(np.float64).tiny)
        square = np.maximum(after.get(k, 1.0), (gradient / largest) ** 2)
        update = gradient / np.sqrt(np.maximum(square, np.finfo(np.float64).tiny))
        size = _size(old)
        if relative:
            size *= _size(parameters[1][k]) / max(_size(parameters[0][k]), 1e-30)
        new[k] = update * (size / max(_size(update), np.finfo(np.float64).tiny))
    return new


def _size(x: Any) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.asarray(x, np.float64) ** 2)))


def _scale_of(group: _Group, scales: list[_Squares]) -> _Squares | None:
    """The squares in the same state, otherwise the last ones before it in the chain."""
    fitting = [squares for squares in scales if squares.group.overlaps(group.arrays)]
    for squares in fitting:
        if squares.group.states & group.states:
            return squares
    before = [
        squares
        for squares in fitting
        if any(tree.comes_after(other) for tree in group.trees for other in squares.group.trees)
    ]
    return before[-1] if before else None


def _averaged(x: np.ndarray, shape: tuple[int, ...], power: int) -> np.ndarray:
    """The power mean along the axes that change, repeated along the new axes."""
    axes = tuple(k for k, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if a != b)
    if not axes:
        return x
    mean = np.mean(x**power, axis=axes, keepdims=True) ** (1 / power)
    return np.broadcast_to(mean, shape).copy()
