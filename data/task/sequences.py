"""Sequences of different lengths as one array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import float32
from .batch import InputKind

MOST_TOKENS = 2**31 - 1
"""Bound of the numbers of tokens."""


def padded_sequences(
    sequences: Sequence[Any], length: int | None, kind: InputKind
) -> tuple[np.ndarray, np.ndarray]:
    """Arrays [L_i] or [L_i, c] as one, [n, L, c] of real inputs or [n, L] of tokens; the lengths.

    ValueError if there is none, or if one is empty, longer than `length` or has other channels.
    """
    if not len(sequences):
        raise ValueError("sequences must be one or more, got none")
    dtype = np.float32 if kind == "real" else np.int32
    arrays = [_column(np.asarray(x), kind, k) for k, x in enumerate(sequences)]
    lengths = np.array([len(x) for x in arrays], np.int32)
    channels = arrays[0].shape[1:]
    for k, x in enumerate(arrays):
        if x.shape[1:] != channels:
            raise ValueError(
                f"sequences must all have {channels[0]} channels as the first one has, got "
                f"{x.shape[1]} in sequence {k}"
            )
        if len(x) == 0:
            raise ValueError(f"sequences must have a step or more, got none in sequence {k}")
    longest = int(lengths.max())
    if length is not None and longest > length:
        raise ValueError(f"sequences must have at most length={length} steps, got {longest}")
    padded = np.zeros((len(arrays), length or longest, *channels), dtype)
    for row, x in zip(padded, arrays, strict=True):
        row[: len(x)] = x
    return padded, lengths


def _column(x: np.ndarray, kind: InputKind, k: int) -> np.ndarray:
    """A sequence in the shape of its kind."""
    most = 2 if kind == "real" else 1
    if x.ndim < 1 or x.ndim > most or x.dtype.kind not in "fiub":
        shapes = "[L] or [L, channels]" if kind == "real" else "[L]"
        raise ValueError(
            f"sequences must be numbers of shape {shapes}, got {x.dtype} of shape {x.shape} in "
            f"sequence {k}"
        )
    if kind == "real":
        x = float32(x)
        return x[:, None] if x.ndim == 1 else x
    whole = (x >= 0) & (x < MOST_TOKENS) & (x == np.floor(x))
    if not whole.all():
        raise ValueError(
            f"tokens must be whole numbers from 0, below {MOST_TOKENS}, got {x[~whole][0]} in "
            f"sequence {k}"
        )
    return x.astype(np.int32)


def padded_labels(labels: Any, lengths: np.ndarray, longest: int) -> tuple[np.ndarray, bool]:
    """Labels in the form of a split, and whether they are values at every step.

    Whole numbers, one for each sequence, are classes; other numbers are values, one or k for each
    sequence; a list of arrays [L_i, k] are values at every step.
    """
    if len(labels) != len(lengths):
        raise ValueError(
            f"labels must be one for each of {len(lengths)} sequences, got {len(labels)}"
        )
    first = np.asarray(labels[0])
    if first.ndim == 2:
        padded, own = padded_sequences(labels, longest, "real")
        if not np.array_equal(own, lengths):
            raise ValueError("labels at every step must be as long as their sequences, got others")
        return padded, True
    try:
        array = np.asarray(labels)
    except ValueError:
        raise ValueError("labels must all have one shape, got different ones") from None
    if array.dtype.kind in "iub" and array.ndim == 1:
        return array.astype(np.int32), False
    if array.dtype.kind not in "fiub" or array.ndim > 2:
        raise ValueError(
            f"labels must be numbers, one or k for each sequence, got {array.dtype} of shape "
            f"{array.shape}"
        )
    array = float32(array)
    return (array[:, None] if array.ndim == 1 else array), False
