"""Columns of sequences and labels, of arrays or of lists, as a task."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..task import InputKind, Missing, Split, Task
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
        if not len(arrays[needed]):
            raise ValueError(f"{needed} of split {name} must not be empty")
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
        return Labelled(
            Split.from_sequences(
                arrays["inputs"],
                labels,
                intervals=arrays.get("intervals"),
                missing=config.missing,
                input_kind=config.input_kind,
            ),
            names,
        )
    inputs = _typed_inputs(np.asarray(arrays["inputs"]), config.input_kind)
    if names is None:
        labels = np.asarray(labels, np.float32)
        labels = labels[:, None] if labels.ndim == 1 else labels
    given = {name: arrays.get(name) for name in NAMES[2:]}
    lengths = given["lengths"]
    if lengths is not None and inputs.ndim == 3 and np.shape(lengths) == inputs.shape[:1]:
        inside = np.arange(inputs.shape[1]) < np.asarray(lengths)[:, None]
        inputs = np.where(inside[..., None], inputs, np.zeros((), inputs.dtype))
    split = Split(
        inputs,
        labels,
        lengths=None if lengths is None else np.asarray(lengths, np.int32),
        intervals=None if given["intervals"] is None else given["intervals"].astype(np.float32),
        input_kind=config.input_kind,
        mask=_mask(inputs, given["mask"], config),
        label_mask=_label_mask(labels, given["label_mask"], config),
    )
    return Labelled(split, names)


def _typed_inputs(inputs: np.ndarray, kind: InputKind) -> np.ndarray:
    if inputs.dtype.kind not in "fiub":
        raise ValueError(f"inputs must be numbers, got {inputs.dtype}")
    if kind == "tokens":
        if inputs.ndim != 2 or inputs.dtype.kind == "f" or inputs.min() < 0:
            raise ValueError(
                f"inputs of tokens must be whole numbers [n, L] from 0, got {inputs.dtype} of "
                f"shape {inputs.shape}"
            )
        return inputs if inputs.dtype == np.uint8 else inputs.astype(np.int32)
    if inputs.ndim not in (2, 3):
        raise ValueError(f"inputs must be of shape [n, L, c] or [n, L], got {inputs.shape}")
    inputs = inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)
    return inputs[..., None] if inputs.ndim == 2 else inputs


def _mask(inputs: np.ndarray, given: np.ndarray | None, config: ColumnOptions) -> np.ndarray | None:
    if given is not None:
        mask = given.astype(bool)
        return mask[..., None] if mask.ndim == 2 else mask
    if config.missing == "mask" and inputs.dtype == np.float32:
        known = np.isfinite(inputs)
        return None if known.all() else known
    return None


def _label_mask(
    labels: np.ndarray, given: np.ndarray | None, config: ColumnOptions
) -> np.ndarray | None:
    if given is not None:
        return given.astype(bool).reshape(labels.shape)
    if config.missing == "mask" and labels.dtype == np.float32:
        known = np.isfinite(labels)
        return None if known.all() else known
    return None
