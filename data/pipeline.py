"""Batches of a split as a function of (seed, step)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool

from .task import Batch, Split
from .typing import checked


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one of several processes reads.

    Process `index` of `count` has rows index * B / count onwards of each batch of B, so that the
    parts of all processes, in order, are the batch that one process alone would have.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(f"index must be in [0, count={self.count}), got {self.index}")

    @checked
    def rows(self, batch_size: int) -> slice:
        """The rows of a batch; ValueError if they cannot be shared out equally."""
        if batch_size % self.count:
            raise ValueError(
                f"batch_size must be a multiple of the {self.count} processes, got {batch_size}"
            )
        share = batch_size // self.count
        return slice(self.index * share, (self.index + 1) * share)


@checked
def train_batch(
    split: Split, batch_size: int, seed: int, step: int, count: int = 1, shard: Shard = Shard()
) -> Batch:
    """The batches `step`, ..., `step + count - 1` of a run: a pure function of (seed, step).

    The samples form one endless stream of epochs, each a permutation drawn from (seed, epoch), and
    batch `k` is the stream's samples `k * batch_size` onwards. So within an epoch no sample is lost
    or repeated, a batch may span two epochs, and a resumed run sees the same batches as an
    uninterrupted one. Every process of a run draws the same stream and takes the rows of its
    `shard`.

    Returns arrays [count, B, ...], with B = batch_size / shard.count. Raises ValueError when
    `batch_size` is not in 1..len(split) or not a multiple of the processes, `count` < 1, or `seed`
    or `step` is negative.
    """
    if not 1 <= batch_size <= len(split):
        raise ValueError(
            f"batch_size must be between 1 and the split's {len(split)} samples, got {batch_size}"
        )
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if seed < 0 or step < 0:
        raise ValueError(f"seed and step must not be negative, got {seed} and {step}")
    rows = shard.rows(batch_size)
    n = len(split)
    first, last = step * batch_size, (step + count) * batch_size
    pieces = [
        _permutation(n, seed, epoch)[max(first - epoch * n, 0) : last - epoch * n]
        for epoch in range(first // n, (last - 1) // n + 1)
    ]
    return split.take(np.concatenate(pieces).reshape(count, batch_size)[:, rows])


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    permutation = np.random.default_rng([seed, epoch]).permutation(n)
    permutation.flags.writeable = False
    return permutation


@checked
def eval_batches(
    split: Split, batch_size: int, shard: Shard = Shard()
) -> Iterator[tuple[Batch, Bool[np.ndarray, " B"]]]:
    """The split in order, once, as pairs (batch, mask) of one shape. The last batch is filled up
    with copies of the last sample; only rows where `mask` is true are valid. Each process has the
    rows of its `shard`, B = batch_size / shard.count. Raises ValueError when `batch_size` < 1 or
    not a multiple of the processes.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return _eval_batches(split, batch_size, shard.rows(batch_size))


def _eval_batches(
    split: Split, batch_size: int, share: slice
) -> Iterator[tuple[Batch, np.ndarray]]:
    for start in range(0, len(split), batch_size):
        rows = np.arange(start, start + batch_size)[share]
        yield split.take(np.minimum(rows, len(split) - 1)), rows < len(split)
