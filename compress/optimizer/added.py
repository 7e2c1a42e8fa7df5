"""Moments of parameters that a layer has only after its cut.

They have no moments yet. They follow a parameter of the layer before: if that is masked out, so are
they. Averages of gradients, and of updates, begin at zero. Squares begin at the other's mean, times
the ratio of the two gradients' squares (`compress.cut.Added`). First steps then have a usual size.
With squares of zero and a large count they would be very large. Steps begin at the other's mean.
Copies of parameters begin with the parameter itself.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..cut import Added
from ..numerics.precision import is_inexact, narrow_array
from .find import Tree
from .transport import as_comes_in, least


def added_part(
    tree: Tree, trees: Sequence[Tree], leaves: list[Any], added: Added, new: Any, mode: str
) -> Any:
    """What `tree` holds for the parameter `new`; `leaves` are those of the layer before."""
    part, like = tree.parts[added.like], np.shape(leaves[added.like])

    def begun(x: Any) -> Any:
        if not is_inexact(x) or np.size(x) <= 1:
            return x
        if np.shape(x) != like:  # axes more, as in a memory, or fewer
            extra = np.ndim(x) - len(like)
            kept = np.shape(x)[:extra] if extra > 0 and np.shape(x)[extra:] == like else ()
            return narrow_array(np.zeros((*kept, *np.shape(new))), x)
        if tree.meaning in ("parameter", "start", "displaced"):
            return narrow_array(new, x)
        meaning = as_comes_in(tree, trees, leaves).meaning
        smallest = least(tree.arrays(leaves))
        value = _begin(np.asarray(x, np.float64), meaning, smallest, added, mode)
        return narrow_array(np.full(np.shape(new), value), x)

    return jax.tree.map(begun, part)


def _begin(x: np.ndarray, meaning: str, smallest: float, added: Added, mode: str) -> float:
    """The number that all entries begin with, where those of the other parameter are `x`."""
    if meaning == "step":
        return float(np.sqrt(np.mean(x**2)))
    if meaning == "step_square":
        return float(np.mean(x))
    if mode != "transport":
        return smallest if meaning in ("square_sum", "maximum") else 0.0
    match meaning:
        case "square" | "curvature":
            return float(np.mean(x)) * added.square
        case "square_sum":
            return smallest + (float(np.mean(x)) - smallest) * added.square
        case "maximum":
            return float(np.sqrt(np.mean(x**2) * added.square))
        case _:
            return 0.0
