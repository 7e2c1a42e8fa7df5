"""Adafactor's factored squares, multiplied out and factored again.

Shazeer & Stern (2018), and `optax.scale_by_factored_rms`: if the two longest axes of a parameter
are long enough, only the means of its squares over each of the two are stored; `v` stores the
squares of all other parameters.
"""

import numpy as np
from jaxtyping import Float

FIELDS = ("v_row", "v_col", "v")

MIN_SIZE = 128
"""Smallest length of the second longest axis for which optax factors by default."""


def multiply_out(
    row: Float[np.ndarray, "..."], col: Float[np.ndarray, "..."], shape: tuple[int, ...]
) -> Float[np.ndarray, "..."]:
    """The squares that stand behind `row`, means over the longest axis, and `col`, the second."""
    second, longest = _axes(shape)
    row, col = np.expand_dims(row, longest), np.expand_dims(col, second)
    mean = np.mean(row, axis=second, keepdims=True)
    return row * col / np.maximum(mean, np.finfo(np.float64).tiny)


def factor(squares: Float[np.ndarray, "..."]):
    """`row` and `col` of these squares."""
    second, longest = _axes(squares.shape)
    return np.mean(squares, axis=longest), np.mean(squares, axis=second)


def is_factored(shape: tuple[int, ...], min_size: int) -> bool:
    """Whether optax factors the squares of a parameter of this shape."""
    return len(shape) >= 2 and sorted(shape)[-2] >= min_size


def min_size(factored: list[tuple[int, ...]], whole: list[tuple[int, ...]]) -> int:
    """The setting of that name, as far as the shapes of factored and whole squares determine it."""
    most = min((sorted(shape)[-2] for shape in factored), default=MIN_SIZE)
    least = max((sorted(shape)[-2] + 1 for shape in whole if len(shape) >= 2), default=1)
    return max(least, min(MIN_SIZE, most))


def _axes(shape: tuple[int, ...]) -> tuple[int, int]:
    order = np.argsort(shape)
    return int(order[-2]), int(order[-1])
