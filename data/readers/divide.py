"""The user's sequences as splits: divided, normalised, and with numbered classes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..checks import check_shares
from ..task import Split

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Shares:
    """The shares of sequences for validation and testing, if they are not given."""

    validation: float
    test: float
    seed: int

    def __post_init__(self):
        check_shares(self)
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")


def class_numbers(
    labels: Mapping[str, Any],
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels of the splits as 0, 1, ..., and the names that they had, in order.

    ValueError for a single class, and for one that the training split lacks.
    """
    given = {split: _names(own) for split, own in labels.items()}
    if len({array.dtype.kind in "US" for array in given.values()}) > 1:
        raise ValueError("labels must be names in all splits, or numbers in all, got both")
    names = np.unique(given["train"])
    if len(names) < 2:
        raise ValueError(f"labels must be of two classes or more, got {names.tolist()}")
    numbers = {}
    for split, array in given.items():
        unknown = np.setdiff1d(array, names)
        if len(unknown):
            raise ValueError(
                f"labels of split {split} must be classes of split train, got {unknown[0].item()!r}"
            )
        numbers[split] = np.searchsorted(names, array).astype(np.int32)
    return numbers, tuple(map(str, names))


def _names(labels: Any) -> np.ndarray:
    """The names or numbers of classes, one for each sequence."""
    array = np.asarray(labels)
    if array.dtype.kind == "O" and all(isinstance(each, str) for each in array.flat):
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "fiubUS":
        raise ValueError(
            f"labels of classes must be names or numbers, one for each sequence, got {array.dtype} "
            f"of shape {array.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("labels of classes must be finite, got NaN or infinity")
    return array


def divided(parts: Mapping[str, Split], shares: Shares, classify: bool) -> dict[str, Split]:
    """The three splits from the given ones: missing ones are drawn from split train. With
    `classify` each gets its share of every class. The draw depends only on the seed and the order
    of the sequences.
    """
    unknown = set(parts) - set(SPLITS)
    if unknown or "train" not in parts:
        raise ValueError(f"splits must be {', '.join(SPLITS)}, got {', '.join(parts)}")
    left, found = parts["train"], dict(parts)
    for name, share in (("test", shares.test), ("validation", shares.validation)):
        if name in found:
            continue
        taken = _drawn(left.labels if classify else None, len(left), share, shares.seed)
        found[name] = left.select(np.flatnonzero(taken))
        left = left.select(np.flatnonzero(~taken))
    return {**found, "train": left}


def _drawn(labels: np.ndarray | None, n: int, share: float, seed: int) -> np.ndarray:
    """The drawn rows: a share of every class, at least one row in all, and never a whole class."""
    rng = np.random.default_rng([seed, n])
    groups = [np.arange(n)]
    if labels is not None:
        groups = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    taken = np.zeros(n, bool)
    for rows in groups:
        count = round(share * len(rows))
        if len(rows) > 1:
            count = max(count, 1)
        taken[rng.permutation(rows)[: min(count, len(rows) - 1)]] = True
    if not taken.any():
        raise ValueError(f"there must be enough sequences to divide, got {n}")
    return taken


def normalized(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits with real channels that have mean 0 and deviation 1 on the training split."""
    offset, scale = channel_statistics(splits["train"])
    return {name: replace(split, offset=offset, scale=scale) for name, split in splits.items()}


def channel_statistics(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / deviation of each channel over valid and known entries."""
    n, L, c = split.inputs.shape
    there = np.ones((n, L, 1), bool)
    if split.lengths is not None:
        there &= (np.arange(L) < split.lengths[:, None])[..., None]
    if split.mask is not None:
        there = there & split.mask
    there = np.broadcast_to(there, (n, L, c))
    count = np.maximum(there.sum(axis=(0, 1)), 1)
    values = np.where(there, split.inputs, 0).astype(np.float64)
    mean = values.sum(axis=(0, 1)) / count
    spread = np.where(there, values - mean, 0)
    deviation = np.sqrt((spread**2).sum(axis=(0, 1)) / count)
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scale = 1 / np.where(constant, 1, deviation)
    return mean.astype(np.float32), scale.astype(np.float32)


def balanced_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """Weights that balance the classes, 1 on average."""
    counts = np.bincount(labels, minlength=classes)
    return tuple((len(labels) / (classes * np.maximum(counts, 1))).tolist())
