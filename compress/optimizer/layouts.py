"""Squares that a state stores in fewer numbers, converted to the shape of the parameters and back.

Adafactor keeps means over two axes, SM3 the largest along each axis, Novograd one norm for each
array. They are multiplied out, carried as squares are, and put together again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..cut import Added
from ..model.layers import KeyPath
from ..numerics.precision import is_inexact, narrow_array
from . import adafactor
from .find import Tree

Whole = list[tuple[Tree, list[Tree]]]
"""A tree with whole arrays, and the trees of the state that it represents."""


def multiplied_out(trees: Sequence[Tree], leaves: list[Any]) -> tuple[list[Tree], Whole]:
    """`trees` with whole squares instead of factored ones, and the originals of each."""
    whole: Whole = []
    for tree in trees:
        if tree.meaning == "row_square":
            row, col, v = (_beside(tree, trees, name) for name in adafactor.FIELDS)
            whole.append((_adafactor(row, col, v, leaves), [row, col, v]))
        elif tree.meaning == "axis_square":
            parts = [_sm3(part, x) for part, x in zip(tree.parts, leaves, strict=True)]
            whole.append((replace(tree, meaning="square", parts=parts), [tree]))
        elif tree.meaning == "norm_square":
            parts = [_spread(part, x) for part, x in zip(tree.parts, leaves, strict=True)]
            whole.append((replace(tree, meaning="square", parts=parts), [tree]))
    taken = [tree for _, parts in whole for tree in parts]
    rest = [tree for tree in trees if not any(tree is other for other in taken)]
    return [*rest, *(tree for tree, _ in whole)], whole


def put_together(
    whole: Whole, done: dict[KeyPath, list[Any]], leaves: list[Any], added: Sequence[Added]
) -> None:
    """The trees of the state instead of whole squares, in `done`.

    `leaves` are those of the layer before; after their squares come those of parameters `added`,
    stored in the layout of the parameters that they refer to.
    """
    leaves = [*leaves, *(np.zeros(0) for _ in added)]
    for tree, own in whole:
        new = done.pop(tree.keys)
        given = [
            replace(each, parts=[*each.parts, *(each.parts[other.like] for other in added)])
            for each in own
        ]
        if given[0].meaning == "row_square":
            done |= _factored_again(given, new, leaves)
        else:
            again = _largest if given[0].meaning == "axis_square" else _summed
            done[tree.keys] = [
                part if np.shape(squares) == np.shape(x) else again(part, squares)
                for part, squares, x in zip(given[0].parts, new, leaves, strict=True)
            ]


def _beside(tree: Tree, trees: Sequence[Tree], field: str) -> Tree:
    end = tree.keys[len(tree.state) + 1 :]
    return next(
        other
        for other in trees
        if other.state == tree.state
        and other.field == field
        and other.keys[len(other.state) + 1 :] == end
    )


def _adafactor(row: Tree, col: Tree, v: Tree, leaves: list[Any]) -> Tree:
    parts = []
    for of_row, of_col, of_v, x in zip(row.parts, col.parts, v.parts, leaves, strict=True):
        if is_inexact(of_v) and of_v.shape != x.shape:
            squares = adafactor.multiply_out(np.asarray(of_row), np.asarray(of_col), x.shape)
            of_v = narrow_array(squares, of_v)
        parts.append(of_v)
    return replace(v, parts=parts)


def _factored_again(
    given: list[Tree], new: list[Any], leaves: list[Any]
) -> dict[KeyPath, list[Any]]:
    v = given[-1]
    old = [
        (of_v, x.shape)
        for of_v, x in zip(v.parts, leaves, strict=True)
        if is_inexact(of_v) and x.size
    ]
    min_size = adafactor.min_size(
        [shape for of_v, shape in old if of_v.shape != shape],
        [shape for of_v, shape in old if of_v.shape == shape],
    )
    parts = []
    for row, col, of_v, squares in zip(*(tree.parts for tree in given), new, strict=True):
        if is_inexact(of_v) and adafactor.is_factored(squares.shape, min_size):
            new_row, new_col = adafactor.factor(np.asarray(squares))
            row, col = narrow_array(new_row, row), narrow_array(new_col, col)
            squares = narrow_array(np.zeros(1), of_v)
        elif is_inexact(of_v):
            row, col = narrow_array(np.zeros(1), row), narrow_array(np.zeros(1), col)
        parts.append((row, col, squares))
    return {
        tree.keys: list(column)
        for tree, column in zip(given, zip(*parts, strict=True), strict=True)
    }


def _sm3(part: Any, x: Any) -> Any:
    """The minimum over the axes of their values (Anil et al., 2019)."""
    if not isinstance(part, list | tuple) or not part:
        return part
    shape = np.shape(x)
    along = [
        np.reshape(np.asarray(v), [-1 if k == axis else 1 for k in range(len(shape))])
        for axis, v in enumerate(part)
    ]
    squares = along[0]
    for other in along[1:]:
        squares = np.minimum(squares, other)
    return narrow_array(np.broadcast_to(squares, shape), part[0])


def _largest(part: Any, squares: Any) -> Any:
    if not isinstance(part, list | tuple) or not part:
        return part
    axes = range(np.ndim(squares))
    return type(part)(
        narrow_array(np.max(squares, axis=tuple(k for k in axes if k != axis)), part[0])
        for axis in axes
    )


def _spread(part: Any, x: Any) -> Any:
    """One square for each entry; they add up to the array's."""
    if not is_inexact(part) or not is_inexact(x) or np.size(x) == 0:
        return part
    return narrow_array(np.broadcast_to(np.asarray(part) / np.size(x), np.shape(x)), part)


def _summed(part: Any, squares: Any) -> Any:
    if not is_inexact(part):
        return part
    return narrow_array(np.full(part.shape, np.sum(np.asarray(squares))), part)
