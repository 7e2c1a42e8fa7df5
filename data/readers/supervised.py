"""Tasks from labelled sequences of any format."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ..task import InputKind, Kind, Split, Task, majority_baseline
from .baselines import logistic_baseline, mean_baseline, ridge_baseline
from .divide import Shares, balanced_weights, class_numbers, divided, normalized

Asked = Literal["classification", "multilabel", "values", "regression"]


@runtime_checkable
class Options(Protocol):
    """The fields that the configurations of all formats of labelled sequences share."""

    @property
    def validation(self) -> float: ...
    @property
    def test(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def balance(self) -> bool: ...


@dataclass(frozen=True)
class Labelled:
    """Sequences before classes are numbered."""

    split: Split
    """Labels are placeholders if `names` are given."""
    names: np.ndarray | None = None
    """The name of each sequence's class; None if labels are numbers."""


def asked(labels: Any, kind: Asked | None) -> Asked:
    """The kind of task: as configured, or by the type of the labels.

    Names and whole numbers, one for each sequence, are classes; other numbers are values.
    """
    if kind is not None:
        return kind
    if isinstance(labels, list):
        return "regression"
    if labels.ndim == 1 and labels.dtype.kind in "iubUSO":
        return "classification"
    return "regression" if labels.ndim == 3 else "values"


def supervised_task(
    name: str,
    kind: Asked,
    parts: Mapping[str, Labelled],
    options: Options,
    *,
    input_kind: InputKind = "real",
    vocabulary: int | None = None,
    symbols: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> Task:
    """The task: divided, normalised on the training split, with baselines."""
    splits = {which: part.split for which, part in parts.items()}
    names: tuple[str, ...] | None = None
    if kind == "classification":
        called = {which: part.names for which, part in parts.items()}
        numbers, names = class_numbers({w: x for w, x in called.items() if x is not None})
        splits = {w: replace(split, labels=numbers[w]) for w, split in splits.items()}
    shares = Shares(options.validation, options.test, options.seed)
    splits = _same_length(splits)
    splits = divided(splits, shares, kind == "classification")
    if input_kind == "real" and options.normalize:
        splits = normalized(splits)
    train, test = splits["train"], splits["test"]
    size = train.channels if input_kind == "real" else vocabulary
    assert size is not None
    classes = {"classification": len(names or ()), "multilabel": train.labels.shape[-1]}.get(kind)
    weights = None
    if options.balance and kind == "classification":
        weights = balanced_weights(train.labels, len(names or ()))
    task_kind: Kind = kind
    return Task(
        name=name,
        kind=task_kind,
        length=train.inputs.shape[1],
        input_kind=input_kind,
        input_size=size,
        splits=splits,
        classes=classes,
        symbols=symbols,
        baselines=_baselines(kind, train, test),
        class_weights=weights,
        output_names=names,
        notes=notes,
    )


def _baselines(kind: Asked, train: Split, test: Split) -> dict[str, float]:
    if kind == "classification":
        found = {"majority": majority_baseline(train, test)}
        if train.input_kind == "real":
            found["logistic regression"] = logistic_baseline(train, test)
        return found
    if kind == "values" and train.input_kind == "real":
        return {"mean": mean_baseline(train, test), "ridge": ridge_baseline(train, test)}
    return {} if kind == "multilabel" else {"mean": mean_baseline(train, test)}


def _same_length(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Splits padded to the longest sequence, with lengths and masks in all if one has them."""
    longest = max(split.inputs.shape[1] for split in splits.values())
    lengths = any(split.lengths is not None for split in splits.values()) or any(
        split.inputs.shape[1] != longest for split in splits.values()
    )
    masked = max((0 if x.mask is None else x.mask.shape[-1] for x in splits.values()), default=0)
    found = {}
    for name, split in splits.items():
        n, L = split.inputs.shape[:2]
        mask = split.mask
        if masked and (mask is None or mask.shape[-1] < masked):
            own = np.ones((n, L, 1), bool) if mask is None else mask
            mask = np.repeat(own, masked // own.shape[-1], axis=-1)
        changed = replace(
            split,
            lengths=np.full(n, L, np.int32) if lengths and split.lengths is None else split.lengths,
            mask=mask,
        )
        found[name] = _padded(changed, longest - L)
    return found


def _padded(split: Split, more: int) -> Split:
    if not more:
        return split
    per_step = split.labels.ndim == 3

    def pad(x: np.ndarray | None) -> np.ndarray | None:
        if x is None:
            return None
        return np.pad(x, [(0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)])

    parts = {name: pad(getattr(split, name)) for name in ("inputs", "intervals", "mask")}
    if per_step:
        parts |= {name: pad(getattr(split, name)) for name in ("labels", "label_mask")}
    return replace(split, **parts)
