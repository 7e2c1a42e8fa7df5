"""Columns of sequences and labels, of arrays or of lists, as a task."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..checks import float32
from ..task import InputKind, Missing, Split, Task
from ..task.sequences import MOST_TOKENS
from .supervised import Asked, Labelled, Options, asked, supervised_task

NAMES = ("inputs", "labels", "lengths", "intervals", "mask", "label_mask")
"""The columns that a split may have."""


@runtime_checkable
class ColumnOptions(Options, Protocol):
    """The fields that the configurations of all column formats share."""

    @property
    def kind(self) -> Asked | None: ...
    @property
    def input_kind(self) -> InputKind: ...
    @property
    def missing(self) -> Missing: ...


def columns_task(name: str, found: Mapping[str, Mapping[str, Any]], config: ColumnOptions) -> Task:
    """The task of the columns (`NAMES`) of each split that there is, "train" at least."""
    parts = {split: _split_arrays(split, arrays) for split, arrays in found.items()}
    kinds: set[Asked] = {asked(arrays["labels"], config.kind) for arrays in parts.values()}
    if len(kinds) > 1:
        raise ValueError(f"labels must be of one kind in all splits, got {', '.join(kinds)}")
    (kind,) = kinds
    labelled = {split: _labelled(arrays, kind, config) for split, arrays in parts.items()}
    vocabulary = None
    if config.input_kind == "tokens":
        vocabulary = 1 + max(int(part.split.inputs.max()) for part in labelled.values())
    return supervised_task(
        name, kind, labelled, config, input_kind=config.input_kind, vocabulary=vocabulary
    )


def _split_arrays(name: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    for needed in ("inputs", "labels"):
        if needed not in arrays:
            raise ValueError(f"split {name} must have an array {needed}, got {', '.join(arrays)}")
    for each, array in arrays.items():
        if not isinstance(array, list) and not np.ndim(array):
            raise ValueError(f"{each} of split {name} must be an array, got the single {array}")
        if not len(array):
            raise ValueError(f"{each} of split {name} must not be empty")
    if len(arrays["inputs"]) != len(arrays["labels"]):
        raise ValueError(
            f"inputs and labels of split {name} must have one length, got "
            f"{len(arrays['inputs'])} and {len(arrays['labels'])}"
        )
    labels = arrays["labels"]
    return {**arrays, "labels": labels if _is_ragged(labels) else np.asarray(labels)}


def _is_ragged(values: Any) -> bool:
    """Whether these are arrays of different lengths."""
    return isinstance(values, list) and len({np.shape(value) for value in values}) > 1


def _labelled(arrays: dict[str, Any], kind: Asked, config: ColumnOptions) -> Labelled:
    """A split, of arrays or of lists of arrays."""
    names = arrays["labels"] if kind == "classification" else None
    labels = np.zeros(len(arrays["labels"]), np.int32) if names is not None else arrays["labels"]
    if isinstance(arrays["inputs"], list):
        for name in ("lengths", "mask", "label_mask"):
            if name in arrays:
                raise ValueError(f"{name} must be left out where inputs are lists, got one")
        return Labelled(
            Split.from_sequences(
                arrays["inputs"],
                labels,
                intervals=list(arrays["intervals"]) if "intervals" in arrays else None,
                missing=config.missing,
                input_kind=config.input_kind,
            ),
            names,
        )
    inputs = _typed_inputs(np.asarray(arrays["inputs"]), config.input_kind)
    if names is None:
        labels = float32(_numbers("labels", labels))
        labels = labels[:, None] if labels.ndim == 1 else labels
        if labels.ndim > 3 or 0 in labels.shape:
            raise ValueError(f"labels must be [n], [n, k] or [n, L, k], got shape {labels.shape}")
    given = {name: np.asarray(arrays[name]) for name in NAMES[2:] if name in arrays}
    lengths = _lengths(given.get("lengths"), inputs)
    if lengths is not None and inputs.ndim == 3:
        inside = np.arange(inputs.shape[1]) < lengths[:, None]
        inputs = np.where(inside[..., None], inputs, np.zeros((), inputs.dtype))
    intervals = None
    if "intervals" in given:
        intervals = float32(_numbers("intervals", given["intervals"]))
        if intervals.shape != inputs.shape[:2]:
            raise ValueError(
                f"intervals must be of shape {inputs.shape[:2]}, got {intervals.shape}"
            )
    split = Split(
        inputs,
        labels,
        lengths=lengths,
        intervals=intervals,
        input_kind=config.input_kind,
        mask=_mask(inputs, given.get("mask"), config),
        label_mask=_label_mask(labels, given.get("label_mask"), config),
    )
    return Labelled(split, names)


def _numbers(name: str, array: Any) -> np.ndarray:
    """`array`, of real numbers."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, got {array.dtype}")
    return array


def _lengths(given: np.ndarray | None, inputs: np.ndarray) -> np.ndarray | None:
    """The lengths of the sequences, in int32, which holds them."""
    if given is None:
        return None
    if given.dtype.kind not in "iu" or given.shape != inputs.shape[:1]:
        raise ValueError(
            f"lengths must be whole numbers, one for each of {len(inputs)} sequences, got "
            f"{given.dtype} of shape {given.shape}"
        )
    longest = inputs.shape[1]
    if given.min() < 1 or given.max() > longest:
        raise ValueError(
            f"lengths must be in 1..{longest}, got values from {given.min()} to {given.max()}"
        )
    return given.astype(np.int32)


def _booleans(name: str, array: np.ndarray) -> np.ndarray:
    """`array`, of True and False, or of 1 and 0."""
    if array.dtype.kind not in "fiub" or not ((array == 0) | (array == 1)).all():
        raise ValueError(f"{name} must be True or False everywhere, got {array.dtype} with others")
    return array.astype(bool)


def _typed_inputs(inputs: np.ndarray, kind: InputKind) -> np.ndarray:
    if inputs.dtype.kind not in "fiub":
        raise ValueError(f"inputs must be numbers, got {inputs.dtype}")
    if inputs.ndim > 1 and 0 in inputs.shape[1:]:
        raise ValueError(f"inputs must have steps and channels, got shape {inputs.shape}")
    if kind == "tokens":
        if inputs.ndim != 2 or inputs.dtype.kind == "f" or inputs.min() < 0:
            raise ValueError(
                f"inputs of tokens must be whole numbers [n, L] from 0, got {inputs.dtype} of "
                f"shape {inputs.shape}"
            )
        if inputs.max() >= MOST_TOKENS:
            raise ValueError(f"tokens must be below {MOST_TOKENS}, got {inputs.max()}")
        return inputs if inputs.dtype == np.uint8 else inputs.astype(np.int32)
    if inputs.ndim not in (2, 3):
        raise ValueError(f"inputs must be of shape [n, L, c] or [n, L], got {inputs.shape}")
    inputs = inputs if inputs.dtype == np.uint8 else float32(inputs)
    return inputs[..., None] if inputs.ndim == 2 else inputs


def _mask(inputs: np.ndarray, given: np.ndarray | None, config: ColumnOptions) -> np.ndarray | None:
    if given is not None:
        mask = _booleans("mask", given)
        return mask[..., None] if mask.ndim == 2 else mask
    if config.missing == "mask" and inputs.dtype == np.float32:
        known = ~np.isnan(inputs)
        return None if known.all() else known
    return None


def _label_mask(
    labels: np.ndarray, given: np.ndarray | None, config: ColumnOptions
) -> np.ndarray | None:
    if given is not None:
        known = _booleans("label_mask", given)
        if known.size != labels.size:
            raise ValueError(
                f"label_mask must have the shape of the labels, {labels.shape}, got {known.shape}"
            )
        return known.reshape(labels.shape)
    if config.missing == "mask" and labels.dtype == np.float32:
        known = ~np.isnan(labels)
        return None if known.all() else known
    return None
