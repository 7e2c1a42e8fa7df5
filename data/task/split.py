"""Labelled sequences in memory, with masks of missing values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, UInt8

from ..typing import checked
from .batch import Batch, InputKind
from .sequences import padded_labels, padded_sequences

PARTS = ("inputs", "labels", "lengths", "intervals", "mask", "label_mask")
"""The arrays of a split, with a row for each sequence."""

Missing = Literal["refuse", "mask"]
"""The meaning of NaN: an error, or a missing value."""


@dataclass(frozen=True)
class Split:
    """Labelled sequences, in the smallest suitable dtype.

    Pictures stay uint8 in memory, and so do bytes of text. `take` gives real inputs as
    `scale * (stored - offset)` in float32, so a split says how its values are normalised instead of
    holding a second, four times larger, copy of them; tokens become int32.

    With a `mask`, missing inputs become zeros, and the mask follows as additional channels: one, or
    as many as there are channels.
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
        | Float32[np.ndarray, "n k"]
        | Float32[np.ndarray, "n L k"]
        | UInt8[np.ndarray, "n L"]
        | Int32[np.ndarray, "n L"]
    )
    offset: float | Float32[np.ndarray, " c"] = 0.0
    """For real inputs: one number for all channels, or one for each."""
    scale: float | Float32[np.ndarray, " c"] = 1.0
    lengths: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n 2"] | None = None
    """Steps before the padding; None without padding."""
    intervals: Float32[np.ndarray, "n L"] | Float32[np.ndarray, "n 2 L"] | None = None
    """Time before each step, in units of a usual interval; None for regular sampling."""
    input_kind: InputKind = "real"
    """Whether uint8 inputs are measured values or tokens."""
    mask: Bool[np.ndarray, "..."] | None = None
    """Mask of the known real inputs, by steps or by steps and channels; None if all are known."""
    label_mask: Bool[np.ndarray, "..."] | None = None
    """Mask of the known labels, in the shape of the labels; None if all are known."""
    time_channel: bool = False
    """Whether real inputs get an additional channel, which is not stored: the share of the sequence
    before each step, 0, 1 / L, 2 / L and so on."""

    def __post_init__(self):
        for name in PARTS[1:]:
            array = getattr(self, name)
            if array is not None and len(array) != len(self.inputs):
                raise ValueError(
                    f"inputs and {name} must have one length, got {len(self.inputs)} and "
                    f"{len(array)}"
                )
        if self.time_channel and self.input_kind != "real":
            raise ValueError(f"time_channel must be False for {self.input_kind} inputs, got True")
        allowed = (np.uint8, np.float32 if self.input_kind == "real" else np.int32)
        if self.inputs.dtype not in allowed:
            names = " or ".join(np.dtype(kind).name for kind in allowed)
            raise ValueError(f"{self.input_kind} inputs must be {names}, got {self.inputs.dtype}")
        if self.labels.dtype not in (np.int32, np.float32, np.uint8):
            raise ValueError(f"labels must be int32, float32 or uint8, got {self.labels.dtype}")
        self._check_lengths()
        self._check_masks()
        if self.intervals is not None and self.intervals.size:
            least, most = float(self.intervals.min()), float(self.intervals.max())
            if not 0 <= least <= most < math.inf:
                raise ValueError(f"intervals must be finite and 0 or more, got {least} to {most}")

    def _check_lengths(self) -> None:
        if self.lengths is None or not len(self.lengths):
            return
        longest = self.inputs.shape[-1 if self.input_kind == "tokens" else -2]
        shortest, most = int(self.lengths.min()), int(self.lengths.max())
        if shortest < 1 or most > longest:
            raise ValueError(
                f"lengths must be in 1..{longest}, got values from {shortest} to {most}"
            )

    def _check_masks(self) -> None:
        """ValueError for masks of another shape, and for NaN that a mask marks as known."""
        for name in ("mask", "label_mask"):
            mask = getattr(self, name)
            if mask is not None and mask.dtype != np.bool_:
                raise ValueError(f"{name} must be bool, got {mask.dtype}")
        if self.mask is not None:
            n, L, c = self.inputs.shape if self.inputs.ndim == 3 else (*self.inputs.shape, 0)
            if self.input_kind == "tokens" or self.mask.shape not in ((n, L, 1), (n, L, c)):
                raise ValueError(
                    f"mask must have shape {(n, L, 1)} or {(n, L, c)} and go with real inputs, "
                    f"got {self.mask.shape} with {self.input_kind} inputs"
                )
        if self.label_mask is not None and self.label_mask.shape != self.labels.shape:
            raise ValueError(
                f"label_mask must have the shape of the labels, {self.labels.shape}, got "
                f"{self.label_mask.shape}"
            )
        for name, mask in (("inputs", self.mask), ("labels", self.label_mask)):
            array = getattr(self, name)
            rows = _rows_with_gaps(array, mask)
            if not len(rows):
                continue
            row = rows[0]
            if np.isnan(array[row]).any():
                raise ValueError(
                    f'{name} must be finite unless a mask or missing="mask" says what is missing, '
                    f"got NaN in sequence {row}"
                )
            raise ValueError(
                f"{name} must be numbers that float32 has, got infinity in sequence {row}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Channels of real inputs as a model reads them: the measured ones, the mask's, time."""
        masks = 0 if self.mask is None else self.mask.shape[-1]
        return self.inputs.shape[-1] + masks + self.time_channel

    @classmethod
    @checked
    def from_sequences(
        cls,
        sequences: Sequence[Any],
        labels: Any,
        *,
        length: int | None = None,
        intervals: Sequence[Any] | None = None,
        missing: Missing = "refuse",
        input_kind: InputKind = "real",
    ) -> "Split":
        """Sequences of different lengths as one split: padded with zeros, their lengths kept.

        `sequences` holds arrays [L_i] or [L_i, c], `labels` one entry for each: a class, k values,
        or an array [L_i, k] of values at every step. `intervals` holds arrays [L_i]. All are padded
        to `length` (None: the longest). With `missing="mask"` NaN marks missing values, in inputs
        and labels. ValueError for no or empty sequences, for sequences with different channels, and
        for those that are longer than `length`.
        """
        inputs, lengths = padded_sequences(sequences, length, input_kind)
        stored, per_step = padded_labels(labels, lengths, inputs.shape[1])
        times = None
        if intervals is not None:
            times, own = padded_sequences(intervals, inputs.shape[1], "real")
            if not np.array_equal(own, lengths):
                raise ValueError("intervals must be as long as their sequences, got others")
            times = times[..., 0]
        inside = np.arange(inputs.shape[1]) < lengths[:, None]
        mask = label_mask = None
        if missing == "mask":
            mask = _known(inputs, inside[..., None]) if input_kind == "real" else None
            label_mask = _known(stored, inside[..., None] if per_step else np.True_)
        padded = bool((lengths < inputs.shape[1]).any())
        return cls(
            inputs,
            stored,
            lengths=lengths if padded else None,
            intervals=times,
            input_kind=input_kind,
            mask=mask,
            label_mask=label_mask,
        )

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
        if self.mask is not None:
            mask = self.mask[indices]
            inputs = np.concatenate([np.where(mask, inputs, 0), mask], axis=-1, dtype=np.float32)
        if self.time_channel:
            ramp = np.arange(inputs.shape[-2], dtype=np.float32) / np.float32(inputs.shape[-2])
            ramp = np.broadcast_to(ramp[:, None], (*inputs.shape[:-1], 1))
            inputs = np.concatenate([inputs, ramp], axis=-1)
        known = None
        if self.label_mask is not None:
            known = self.label_mask[indices]
            labels = np.where(known, labels, 0)
        return Batch(
            inputs,
            labels.astype(np.int32) if labels.dtype == np.uint8 else labels,
            None if self.lengths is None else self.lengths[indices],
            None if self.intervals is None else self.intervals[indices],
            known,
        )

    @checked
    def select(self, rows: Int[np.ndarray, " m"] | slice) -> "Split":
        """A split of these rows, with the same storage and normalisation."""
        parts = {name: getattr(self, name) for name in PARTS}
        return replace(self, **{k: None if x is None else x[rows] for k, x in parts.items()})


def _known(array: np.ndarray, inside: Any) -> np.ndarray | None:
    """Which entries are not missing, of those `inside`; None if all are. An infinite entry is not
    missing, but refused."""
    known = ~np.isnan(array)
    return None if np.all(known | ~inside) else known & inside


def _rows_with_gaps(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The rows with a value that is not finite where `mask` is true."""
    if array.dtype != np.float32 or not array.size or np.isfinite(array.sum(dtype=np.float64)):
        return np.zeros(0, np.int64)
    gaps = ~np.isfinite(array)
    if mask is not None:
        gaps &= mask
    return np.flatnonzero(gaps.reshape(len(array), -1).any(axis=1))


@checked
def text_split(
    text: UInt8[np.ndarray, " T"] | Int32[np.ndarray, " T"], length: int, stride: int
) -> Split:
    """Windows of `length` tokens that begin every `stride` tokens, labelled with the next tokens.

    Inputs and labels are views of `text`: stride 1 takes no memory, and gives every window for
    training; stride `length` predicts every token once. ValueError for a text that is shorter than
    one window and its last label.
    """
    if length < 1 or stride < 1:
        raise ValueError(f"length and stride must be at least 1, got {length} and {stride}")
    if len(text) <= length:
        raise ValueError(f"text must have more than length={length} tokens, got {len(text)}")
    windows = np.lib.stride_tricks.sliding_window_view(text, length + 1)[::stride]
    return Split(windows[:, :-1], windows[:, 1:], input_kind="tokens")
