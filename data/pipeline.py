"""From a split to batches, with no state but (seed, step)."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from .task import Split


def train_batch(
    split: Split, batch_size: int, seed: int, step: int, count: int = 1
) -> tuple[Shaped[np.ndarray, "count B ..."], Int32[np.ndarray, "count B"]]:
    """The batches `step`, ..., `step + count - 1` of a run: a pure function of (seed, step).

    The samples form one endless stream of epochs, each a permutation drawn from (seed, epoch), and
    batch `k` is the stream's samples `k * batch_size` onwards. So within an epoch no sample is lost
    or repeated, an epoch's tail joins the next one's head in a batch, and a resumed run sees what
    an undisturbed one would have seen.

    Returns inputs [count, batch_size, L, c] in float32, or [count, batch_size, L] in int32 for
    tokens, and labels [count, batch_size]. Raises ValueError when `batch_size` is not in
    1..len(split), `count` < 1, or `seed` or `step` is negative.
    """
    if not 1 <= batch_size <= len(split):
        raise ValueError(
            f"batch_size must be between 1 and the split's {len(split)} samples, got {batch_size}"
        )
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if seed < 0 or step < 0:
        raise ValueError(f"seed and step must not be negative, got {seed} and {step}")
    n = len(split)
    first, last = step * batch_size, (step + count) * batch_size
    pieces = [
        _permutation(n, seed, epoch)[max(first - epoch * n, 0) : last - epoch * n]
        for epoch in range(first // n, (last - 1) // n + 1)
    ]
    return split.take(np.concatenate(pieces).reshape(count, batch_size))


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    permutation = np.random.default_rng([seed, epoch]).permutation(n)
    permutation.flags.writeable = False
    return permutation


def eval_batches(
    split: Split, batch_size: int
) -> Iterator[
    tuple[
        Shaped[np.ndarray, "B ..."],
        Int32[np.ndarray, " B"],
        Bool[np.ndarray, " B"],
    ]
]:
    """The split in order, once, as (inputs, labels, mask), all of one shape.

    The last batch is filled up with copies of the last sample; only rows where `mask` is true
    count. Raises ValueError when `batch_size` < 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return _eval_batches(split, batch_size)


def _eval_batches(
    split: Split, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for start in range(0, len(split), batch_size):
        rows = np.arange(start, start + batch_size)
        mask = rows < len(split)
        inputs, labels = split.take(np.minimum(rows, len(split) - 1))
        yield inputs, labels, mask
