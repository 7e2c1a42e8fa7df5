"""Assignment of nodes of an optimizer's state to layers of the model."""

from collections.abc import Mapping
from typing import Any

import jax

from zoo import AbstractSSM

from ..model.layers import KeyPath
from ..numerics.precision import is_inexact


def owners_of(
    keys: KeyPath, node: AbstractSSM, layers: Mapping[KeyPath, AbstractSSM]
) -> tuple[list[KeyPath], int]:
    """The layers whose paths fit best, and the number of equal keys at the paths' ends."""
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


def parts_of(name: str, node: AbstractSSM, layer: AbstractSSM) -> list[Any]:
    """The parts of `node` at the places of the layer's leaves. ValueError if its structure differs
    from the layer's, or arrays have other shapes.
    """
    leaves, treedef = jax.tree.flatten(layer)
    try:
        parts = treedef.flatten_up_to(node)
    except ValueError:
        raise ValueError(
            f"opt_state: {name} must have the structure of the model's {type(layer).__name__}, got "
            "another one"
        ) from None
    for part, x in zip(parts, leaves, strict=True):
        if is_inexact(part) and part.ndim == x.ndim and part.size > 1 and part.shape != x.shape:
            raise ValueError(
                f"opt_state: {name} must be of this model, whose parameter has shape {x.shape}, "
                f"got an array of shape {part.shape}"
            )
    return parts
