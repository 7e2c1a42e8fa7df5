"""What a task is: splits of labelled sequences, and what trivial predictors score on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from .typing import checked

Kind = Literal["classification", "pair", "regression", "language", "recall"]
"""What is asked: the class of a sequence, the class of a pair of sequences, values at every step,
the next token at every step, or a token at some of the steps."""

InputKind = Literal["real", "tokens"]

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: called now and then by long work; its owner draws the bar."""


class Batch(NamedTuple):
    """Sequences as a model reads them, with all that goes with them; None where there is nothing.

    `*batch` is [B], or [count, B] for several batches at once.
    """

    inputs: (
        Float32[np.ndarray, "*batch L c"]
        | Int32[np.ndarray, "*batch L"]
        | Int32[np.ndarray, "*batch 2 L"]
    )
    """Real channels, tokens, or pairs of sequences of tokens."""
    labels: (
        Int32[np.ndarray, "*batch"]
        | Float32[np.ndarray, "*batch L k"]
        | Int32[np.ndarray, "*batch L"]
    )
    """The class, k values at every step, the next token at every step, or the token that is asked
    for at a step, -1 where none is."""
    lengths: Int32[np.ndarray, "*batch"] | Int32[np.ndarray, "*batch 2"] | None = None
    """Steps of each sequence proper; what follows them is padding. None: nothing is padded."""
    intervals: Float32[np.ndarray, "*batch L"] | None = None
    """Time before each step, in units of a usual one. None: all the same."""


@dataclass(frozen=True)
class Split:
    """Labelled sequences, in the type in which they are cheapest to hold.

    Pictures stay uint8 in memory, and so do bytes of text. `take` gives real inputs as
    `scale * (stored - offset)` in float32, so a split says how its values are normalised instead of
    holding a second, four times larger, copy of them; tokens become int32.
    """

    inputs: (
        UInt8[np.ndarray, "n L c"]
        | Float32[np.ndarray, "n L c"]
        | UInt8[np.ndarray, "n L"]
        | Int32[np.ndarray, "n L"]
        | UInt8[np.ndarray, "n 2 L"]
        | Int32[np.ndarray, "n 2 L"]
    )
    labels: (
        Int32[np.ndarray, " n"]
        | Float32[np.ndarray, "n L k"]
        | UInt8[np.ndarray, "n L"]
        | Int32[np.ndarray, "n L"]
    )
    offset: float | Float32[np.ndarray, " c"] = 0.0
    """Of real inputs: one for all, or one for each channel."""
    scale: float | Float32[np.ndarray, " c"] = 1.0
    lengths: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n 2"] | None = None
    """Steps before the padding; None where nothing is padded."""
    intervals: Float32[np.ndarray, "n L"] | None = None
    """Time before each step, in units of a usual one; None where all are the same."""
    input_kind: InputKind = "real"
    """Whether uint8 inputs are measured values or tokens."""

    def __post_init__(self):
        for name in ("labels", "lengths", "intervals"):
            array = getattr(self, name)
            if array is not None and len(array) != len(self.inputs):
                raise ValueError(
                    f"inputs and {name} must have one length, got {len(self.inputs)} and "
                    f"{len(array)}"
                )
        allowed = (np.uint8, np.float32 if self.input_kind == "real" else np.int32)
        if self.inputs.dtype not in allowed:
            names = " or ".join(np.dtype(kind).name for kind in allowed)
            raise ValueError(f"{self.input_kind} inputs must be {names}, got {self.inputs.dtype}")
        if self.labels.dtype not in (np.int32, np.float32, np.uint8):
            raise ValueError(f"labels must be int32, float32 or uint8, got {self.labels.dtype}")
        if self.lengths is not None and len(self.lengths):
            longest = self.inputs.shape[-1 if self.input_kind == "tokens" else -2]
            shortest, most = int(self.lengths.min()), int(self.lengths.max())
            if shortest < 1 or most > longest:
                raise ValueError(
                    f"lengths must be in 1..{longest}, got values from {shortest} to {most}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    @checked
    def take(self, indices: Int[np.ndarray, "*batch"]) -> Batch:
        """The rows `indices` as a model reads them."""
        inputs, labels = self.inputs[indices], self.labels[indices]
        if self.input_kind == "tokens":
            inputs = inputs.astype(np.int32, copy=False)
        elif inputs.dtype == np.uint8:
            inputs = inputs.astype(np.float32)
        if inputs.dtype == np.float32 and (np.any(self.offset) or np.any(self.scale != 1)):
            inputs -= np.asarray(self.offset, np.float32)
            inputs *= np.asarray(self.scale, np.float32)
        return Batch(
            inputs,
            labels.astype(np.int32) if labels.dtype == np.uint8 else labels,
            None if self.lengths is None else self.lengths[indices],
            None if self.intervals is None else self.intervals[indices],
        )

    @checked
    def select(self, rows: Int[np.ndarray, " m"] | slice) -> "Split":
        """A split of these rows, stored and normalised like this one."""
        parts = {name: getattr(self, name) for name in ("inputs", "labels", "lengths", "intervals")}
        return replace(self, **{k: None if x is None else x[rows] for k, x in parts.items()})


@checked
def text_split(
    text: UInt8[np.ndarray, " T"] | Int32[np.ndarray, " T"], length: int, stride: int
) -> Split:
    """Windows of `length` tokens that begin every `stride` tokens, labelled with the next tokens.

    Inputs and labels are views of `text`: stride 1 costs nothing, and gives training every window
    there is; stride `length` asks for every token once. A text that is shorter than one window and
    its last label is refused.
    """
    if length < 1 or stride < 1:
        raise ValueError(f"length and stride must be at least 1, got {length} and {stride}")
    if len(text) <= length:
        raise ValueError(f"text must have more than length={length} tokens, got {len(text)}")
    windows = np.lib.stride_tricks.sliding_window_view(text, length + 1)[::stride]
    return Split(windows[:, :-1], windows[:, 1:], input_kind="tokens")


@dataclass(frozen=True)
class Task:
    """Sequences of `length` steps and what is asked of them, with the data in memory.

    `baselines` holds what predictors that look at one cheap feature score on the test split, in the
    measure of the kind: accuracy (classification, pair, recall), mean squared error (regression),
    bits per token (language); a model has learned the task only as far as it is better than all of
    them.
    `notes` are things a report should repeat, such as files that were skipped.

    By kind, each sample of a split holds: "classification" [L c] or tokens [L], and an int32 label;
    "pair" tokens [2 L], and an int32 label; "regression" [L c], and float32 labels [L k];
    "language" tokens [L], and as labels the token that comes after each (`text_split`); "recall"
    tokens [L], and as labels the token that is asked for at each step, -1 where none is.
    """

    name: str
    length: int
    input_kind: InputKind
    input_size: int
    """Channels of real inputs; size of the vocabulary of tokens."""
    splits: Mapping[str, Split]
    """Under "train", "validation" and "test"."""
    classes: int | None = None
    """Of kinds "classification" and "pair"; None for the others."""
    kind: Kind = "classification"
    frame: tuple[int, int] | None = None
    """Height and width where the channels of a step are the pixels of a picture, row by row."""
    symbols: tuple[str, ...] | None = None
    """How each token is shown, for people to read; None where inputs are no tokens."""
    baselines: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Numbers that a model gives, for a sequence or for each step: scores of the classes,
        values, or scores of the tokens."""
        if self.classes is not None:
            return self.classes
        if self.kind == "regression":
            return self.splits["train"].labels.shape[-1]
        return self.input_size

    def __post_init__(self):
        if set(self.splits) != {"train", "validation", "test"}:
            raise ValueError(
                f"splits must be train, validation and test, got {', '.join(self.splits)}"
            )
        classifies = self.kind in ("classification", "pair")
        if classifies != (self.classes is not None) or (classifies and not self.classes):
            raise ValueError(
                f"classes must be 1 or more for classification and pair, None for other kinds, "
                f"got {self.classes} for {self.kind}"
            )
        if self.input_kind == "real" and self.kind in ("pair", "language", "recall"):
            raise ValueError(f"input_kind must be tokens for kind {self.kind}, got real")
        if self.frame is not None and self.frame[0] * self.frame[1] != self.input_size:
            raise ValueError(f"frame {self.frame} must have {self.input_size} pixels (input_size)")
        if self.symbols is not None and len(self.symbols) != self.input_size:
            raise ValueError(
                f"symbols must be one for each of {self.input_size} tokens, got {len(self.symbols)}"
            )
        for name, split in self.splits.items():
            self._check(name, split)

    def _check(self, name: str, split: Split) -> None:
        if len(split) == 0:
            raise ValueError(f"split {name} must not be empty")
        if split.input_kind != self.input_kind:
            raise ValueError(
                f"input_kind of split {name} must be {self.input_kind}, got {split.input_kind}"
            )
        real = self.input_kind == "real"
        pair = (2,) if self.kind == "pair" else ()
        _check_shape(
            f"inputs of split {name}",
            split.inputs,
            (*pair, self.length, self.input_size) if real else (*pair, self.length),
        )
        one = (self.length,)
        per_step = {"regression": (*one, self.outputs), "language": one, "recall": one}
        _check_shape(f"labels of split {name}", split.labels, per_step.get(self.kind, ()))
        if split.lengths is not None:
            _check_shape(f"lengths of split {name}", split.lengths, pair)
        if split.intervals is not None:
            _check_shape(f"intervals of split {name}", split.intervals, (self.length,))
        if self.kind == "regression":
            return
        least = -1 if self.kind == "recall" else 0
        if split.labels.min() < least or split.labels.max() >= self.outputs:
            raise ValueError(f"labels of split {name} must be in [{least}, {self.outputs})")
        if self.kind == "recall" and split.labels.max() < 0:
            raise ValueError(f"labels of split {name} must ask for some token, got -1 everywhere")


def _check_shape(what: str, array: np.ndarray, want: tuple[int, ...]) -> None:
    if array.shape[1:] != want:
        raise ValueError(f"{what} must have shape {want}, got {array.shape[1:]}")


@checked
def majority_baseline(train: Split, test: Split) -> float:
    """Accuracy on `test` of always answering the commonest label of `train`."""
    return float(np.mean(test.labels == np.bincount(train.labels).argmax()))


@checked
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
