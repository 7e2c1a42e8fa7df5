"""Sequences of pairs and queries, as in Arora et al., ICLR 2024 (arXiv 2312.04927, appendix E).

A sequence begins with pairs of a key and a value, keys from the first half of the vocabulary and
values from the second, all of them different. Then each key comes once more, at an even distance
from the pairs, with its value as the label. Distances are drawn without repetition from a power
law. All other places hold random tokens. (As in the paper, an answer follows its query only by
chance.)
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

NOTHING = -1
"""The label of steps without a query."""


class Sequences(NamedTuple):
    """Tokens, and the label of each."""

    tokens: Int32[np.ndarray, "n L"]
    values: Int32[np.ndarray, "n L"]
    """The value of the key that stands here again, `NOTHING` at other places."""


def draw(
    count: int,
    pairs: tuple[int, int],
    length: int,
    vocabulary: int,
    power: float,
    rng: np.random.Generator,
) -> Sequences:
    """`count` sequences, of a number of pairs drawn evenly from `pairs`, a range with both ends."""
    fewest, most = pairs
    if fewest == most:
        return _of_equal_pairs(count, most, length, vocabulary, power, rng)
    numbers = rng.integers(fewest, most + 1, size=count)
    drawn = Sequences(*(np.empty((count, length), np.int32) for _ in Sequences._fields))
    for number in range(fewest, most + 1):
        rows = np.flatnonzero(numbers == number)
        some = _of_equal_pairs(len(rows), number, length, vocabulary, power, rng)
        for whole, part in zip(drawn, some, strict=True):
            whole[rows] = part
    return drawn


def _of_equal_pairs(
    count: int,
    pairs: int,
    length: int,
    vocabulary: int,
    power: float,
    rng: np.random.Generator,
) -> Sequences:
    half, context = vocabulary // 2, 2 * pairs
    keys = 1 + _different(np.ones(half - 1), (count, pairs), rng)
    values = half + _different(np.ones(half), (count, pairs), rng)
    gaps = np.arange(1, (length - context) // 2 + 1, dtype=float) ** (power - 1)
    places = context + 2 * _different(gaps, (count, pairs), rng)
    tokens = rng.integers(vocabulary, size=(count, length), dtype=np.int32)
    tokens[:, 0:context:2], tokens[:, 1:context:2] = keys, values
    np.put_along_axis(tokens, places, keys.astype(np.int32), axis=1)
    asked = np.full((count, length), NOTHING, np.int32)
    np.put_along_axis(asked, places, values.astype(np.int32), axis=1)
    return Sequences(tokens, asked)


def _different(
    weights: Float[np.ndarray, " m"], shape: tuple[int, int], rng: np.random.Generator
) -> Int[np.ndarray, "count k"]:
    """In each of `count` rows, k different numbers below m, one after the other drawn by weight.

    The k smallest of exponential variables with these rates (Efraimidis, Spirakis 2006).
    """
    count, k = shape
    waits = rng.exponential(size=(count, len(weights))) / weights
    return np.argsort(waits, axis=1)[:, :k]
