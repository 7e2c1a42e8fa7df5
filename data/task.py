"""What a task is: splits of labelled sequences, and what trivial predictors score on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

Inputs = Float32[np.ndarray, "*batch L c"] | Int32[np.ndarray, "*batch L"]
"""A batch as a model reads it: real channels, or tokens."""

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: called now and then by long work; its owner draws the bar."""


@dataclass(frozen=True)
class Split:
    """Labelled sequences, in the type in which they are cheapest to hold.

    Pictures stay uint8 in memory. `take` gives `scale * (stored - offset)` in float32, so a split
    says how its values are normalised instead of holding a second, four times larger, copy of them.
    """

    inputs: UInt8[np.ndarray, "n L c"] | Float32[np.ndarray, "n L c"] | Int32[np.ndarray, "n L"]
    labels: Int32[np.ndarray, " n"]
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self):
        if len(self.inputs) != len(self.labels):
            raise ValueError(
                f"inputs and labels must have one length, got {len(self.inputs)} and "
                f"{len(self.labels)}"
            )
        if self.inputs.dtype not in (np.uint8, np.float32, np.int32):
            raise ValueError(f"inputs must be uint8, float32 or int32, got {self.inputs.dtype}")
        if self.labels.dtype != np.int32:
            raise ValueError(f"labels must be int32, got {self.labels.dtype}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(
        self, indices: Int[np.ndarray, "*batch"]
    ) -> tuple[Inputs, Int32[np.ndarray, "*batch"]]:
        """The rows `indices`: inputs, float32 [*batch, L, c] or int32 [*batch, L], and labels."""
        inputs = self.inputs[indices]
        if inputs.dtype == np.uint8:
            inputs = inputs.astype(np.float32)
        if inputs.dtype == np.float32 and (self.offset, self.scale) != (0.0, 1.0):
            inputs -= np.float32(self.offset)
            inputs *= np.float32(self.scale)
        return inputs, self.labels[indices]


@dataclass(frozen=True)
class Task:
    """A classification of sequences of `length` steps, with its data in memory.

    `baselines` holds the accuracy on the test split of predictors that look at one cheap feature; a
    model has learned the task only as far as it is above all of them. `notes` are things a report
    should repeat, such as files that were skipped.
    """

    name: str
    length: int
    input_kind: Literal["real", "tokens"]
    input_size: int
    """Channels of real inputs; size of the vocabulary of tokens."""
    classes: int
    splits: Mapping[str, Split]
    """Under "train", "validation" and "test"."""
    baselines: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        if set(self.splits) != {"train", "validation", "test"}:
            raise ValueError(
                f"splits must be train, validation and test, got {', '.join(self.splits)}"
            )
        for name, split in self.splits.items():
            shape = split.inputs.shape[1:]
            want = (self.length, self.input_size) if self.input_kind == "real" else (self.length,)
            if shape != want:
                raise ValueError(f"inputs of split {name} must have shape {want}, got {shape}")
            if len(split) == 0:
                raise ValueError(f"split {name} must not be empty")
            if split.labels.min() < 0 or split.labels.max() >= self.classes:
                raise ValueError(f"labels of split {name} must be in [0, {self.classes})")


def majority_baseline(train: Split, test: Split) -> float:
    """Accuracy on `test` of always answering the commonest label of `train`."""
    return float(np.mean(test.labels == np.bincount(train.labels).argmax()))


def cell_baseline(
    train: Int[np.ndarray, " n"],
    train_labels: Int32[np.ndarray, " n"],
    test: Int[np.ndarray, " m"],
    test_labels: Int32[np.ndarray, " m"],
) -> float:
    """Accuracy on `test` of a two-class predictor that sees one small integer per sample.

    It answers the label that is commoner in `train` among the samples with that integer.
    """
    cells = int(max(train.max(), test.max())) + 1
    vote = np.bincount(train, weights=2.0 * train_labels - 1, minlength=cells)
    return float(np.mean((vote > 0)[test] == (test_labels == 1)))
