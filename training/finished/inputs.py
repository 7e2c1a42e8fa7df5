"""Inputs of a trained model as a split of its task."""

from dataclasses import replace
from typing import Any

import numpy as np

from data.task import Split, Task


def as_split(task: Task, inputs: Any, lengths: Any = None, intervals: Any = None) -> Split:
    """`inputs` as a split that is held and normalised like those of `task`; its labels are zeros.

    ValueError for arrays that do not fit the task.
    """
    like = task.splits["train"]
    found = np.asarray(inputs)
    wanted, shape = _wanted(task)
    if found.ndim != len(shape) or not all(
        size in (None, there) for size, there in zip(shape, found.shape, strict=True)
    ):
        raise ValueError(f"`inputs` must be {wanted}, got an array of shape {found.shape}")
    if not len(found) or not found.shape[-1 if task.input_kind == "tokens" else -2]:
        raise ValueError(f"`inputs` must hold a sequence and a sample, got shape {found.shape}")
    labels = np.zeros((len(found), *like.labels.shape[1:]), like.labels.dtype)
    return replace(
        like,
        inputs=_tokens(task, found) if task.input_kind == "tokens" else _real(found),
        labels=labels,
        lengths=_lengths(task, found, lengths),
        intervals=_intervals(task, found, intervals),
        mask=_mask(like, found),
        label_mask=None,
    )


def as_sample(task: Task, x: Any) -> np.ndarray:
    """One sample as the model reads it: normalised channels [c], or a token []."""
    like, found = task.splits["train"], np.asarray(x)
    if task.input_kind == "tokens":
        if found.ndim or not np.issubdtype(found.dtype, np.integer):
            raise ValueError(f"a sample must be one token, got {found.dtype} of {found.shape}")
        return found.astype(np.int32)
    stored = like.inputs.shape[-1]
    if found.shape != (stored,):
        raise ValueError(f"a sample must be {stored} channels, got {found.shape}")
    normalised = found.astype(np.float32) - np.asarray(like.offset, np.float32)
    normalised = normalised * np.asarray(like.scale, np.float32)
    known = _mask(like, found)
    if known is None:
        return normalised
    return np.concatenate([np.where(known, normalised, 0), known], dtype=np.float32)


def in_units(task: Task, outputs: Any) -> Any:
    """Values in the units of the data, if the task scales its targets."""
    if task.output_scale is not None:
        outputs = outputs * np.asarray(task.output_scale, np.float32)
    if task.output_offset is not None:
        outputs = outputs + np.asarray(task.output_offset, np.float32)
    return outputs


def _wanted(task: Task) -> tuple[str, tuple[int | None, ...]]:
    """The shape of inputs in words, and as sizes."""
    pair: tuple[int | None, ...] = (2,) if task.kind == "pair" else ()
    real = task.input_kind == "real"
    stored = task.splits["train"].inputs.shape[-1] if real else 0
    channels: tuple[int | None, ...] = (stored,) if real else ()
    names = ["n", *map(str, pair), "length", *map(str, channels)]
    held = "numbers" if task.input_kind == "real" else "tokens"
    return f"{held} [{' '.join(names)}]", (None, *pair, None, *channels)


def _mask(like: Split, inputs: np.ndarray) -> np.ndarray | None:
    """Mask of the inputs that are present, for models with a mask: NaN is missing."""
    if like.mask is None:
        return None
    known = np.isfinite(inputs)
    return known if like.mask.shape[-1] > 1 else np.all(known, axis=-1, keepdims=True)


def _real(found: np.ndarray) -> np.ndarray:
    if found.dtype in (np.uint8, np.float32):
        return found
    if not np.issubdtype(found.dtype, np.number) or np.iscomplexobj(found):
        raise ValueError(f"`inputs` must be real numbers, got {found.dtype}")
    return found.astype(np.float32)


def _tokens(task: Task, found: np.ndarray) -> np.ndarray:
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"`inputs` must be whole numbers, got {found.dtype}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= task.input_size:
        raise ValueError(
            f"`inputs` must be tokens from 0 to {task.input_size - 1}, got {low} to {high}"
        )
    return found if found.dtype == np.uint8 else found.astype(np.int32)


def _lengths(task: Task, inputs: np.ndarray, lengths: Any) -> np.ndarray | None:
    if lengths is None:
        return None
    if task.kind in ("language", "recall"):
        raise ValueError("`lengths` must be None for a language model, whose outputs look back")
    found, shape = np.asarray(lengths), inputs.shape[: 2 if task.kind == "pair" else 1]
    if found.shape != shape or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"`lengths` must be whole numbers of shape {shape}, got {found.dtype} of {found.shape}"
        )
    return found.astype(np.int32)


def _intervals(task: Task, inputs: np.ndarray, intervals: Any) -> np.ndarray | None:
    needed = task.splits["train"].intervals is not None
    if (intervals is not None) != needed:
        allowed = "the time before each sample" if needed else "None for this task"
        got = "None" if intervals is None else "an array"
        raise ValueError(f"`intervals` must be {allowed}, got {got}")
    if intervals is None:
        return None
    found = np.asarray(intervals, np.float32)
    shape = inputs.shape[: 3 if task.kind == "pair" else 2]
    if found.shape != shape:
        raise ValueError(f"`intervals` must be of shape {shape}, got {found.shape}")
    return found
