"""Data sets of tensorflow-datasets and of Hugging Face's `datasets`, by their columns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_shares
from ..store.places import Places
from ..task import InputKind, Missing, Task
from .columns import columns_task
from .divide import SPLITS
from .supervised import Asked

SAVED = ("dataset_dict.json", "dataset_info.json")
"""Files of a folder that `datasets` has saved."""


@dataclass(frozen=True)
class DatasetConfig:
    """A data set with a column of sequences and one of labels."""

    inputs: str = "inputs"
    """Column of the sequences: numbers, or text, whose bytes are the tokens."""
    labels: str = "labels"
    """Column of the labels."""
    kind: Asked | None = None
    """The kind of label. None: names and whole numbers are classes, other numbers are values."""
    input_kind: InputKind = "real"
    """Whether inputs are measured values or tokens; of text, tokens."""
    missing: Missing = "refuse"
    """The meaning of NaN: an error, or a missing value."""
    validation: float = 0.15
    """Share for validation, if there is no split for it."""
    test: float = 0.2
    """Share for testing, if there is no split for it."""
    seed: int = 0
    """Seed of the split."""
    normalize: bool = True
    """Whether to scale each real channel to mean 0 and deviation 1 on the training split."""
    balance: bool = False
    """Whether all classes have equal weight in the loss, however rare."""

    def __post_init__(self):
        check_shares(self)


def load_tfds(name: str, config: DatasetConfig, places: Places) -> Task:
    """The data set `name` of tensorflow-datasets, prepared in `data_dir` or its usual folder."""
    import tensorflow_datasets as tfds

    folder = None if places.data_dir is None else str(places.data_dir)
    try:
        builder: Any = tfds.builder(name, data_dir=folder)
        found = {str(split): builder.as_data_source(split) for split in builder.info.splits}
    except Exception as error:  # of many kinds, none of them common to all
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"`task` tfds:{name} must be a data set that tensorflow-datasets has prepared, with "
            f"file_format array_record, in its usual folder or --data-dir, got: {said[0]}"
        ) from error
    columns = {name: _columns(records, config) for name, records in found.items()}
    return _task(name.replace("/", "-").replace(":", "-"), columns, config)


def load_saved(path: Path, config: DatasetConfig, places: Places) -> Task:
    """A folder that Hugging Face's `datasets` has saved (`save_to_disk`)."""
    del places
    found = _saved(path)
    return _task(path.name, {name: _columns(rows, config) for name, rows in found.items()}, config)


def read_saved(path: Path, config: DatasetConfig) -> list[np.ndarray]:
    """The sequences in a folder that `datasets` has saved; of several splits, those of `test`."""
    found = _saved(path)
    if len(found) > 1 and "test" not in found:
        raise ValueError(f"{path} must hold one split, or a split test, got {', '.join(found)}")
    rows = found["test"] if len(found) > 1 else next(iter(found.values()))
    if config.inputs not in rows.column_names:
        there = ", ".join(rows.column_names)
        raise ValueError(f"there must be a column {config.inputs}, got {there}")
    return [_sequence(x) for x in rows[config.inputs]]


def _saved(path: Path) -> dict[str, Any]:
    """The splits of a folder that `datasets` has saved."""
    try:
        # optional: pip install compressm-zoo[datasets]
        from datasets import load_from_disk  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"{path} needs the package datasets: pip install 'compressm-zoo[datasets]'"
        ) from None
    saved: Any = load_from_disk(str(path))
    return dict(saved) if isinstance(saved, Mapping) else {"train": saved}


def _columns(records: Iterable[Any], config: DatasetConfig) -> dict[str, list[Any]]:
    """The two columns of a split."""
    inputs, labels = [], []
    for record in records:
        for column in (config.inputs, config.labels):
            if column not in record:
                raise ValueError(f"there must be a column {column}, got {', '.join(record)}")
        inputs.append(record[config.inputs])
        labels.append(record[config.labels])
    return {"inputs": inputs, "labels": labels}


def _task(name: str, found: dict[str, dict[str, list[Any]]], config: DatasetConfig) -> Task:
    named = {split: found[split] for split in SPLITS if split in found}
    if "train" not in named:
        raise ValueError(f"there must be a split train, got {', '.join(found)}")
    columns = {
        split: {
            "inputs": [_sequence(x) for x in each["inputs"]],
            "labels": [_label(x) for x in each["labels"]],
        }
        for split, each in named.items()
    }
    return columns_task(name, columns, config)


def _sequence(value: Any) -> np.ndarray:
    """Numbers unchanged; text as its bytes."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return np.frombuffer(value, np.uint8)
    array = np.asarray(value)
    return array if array.ndim < 3 else array.reshape(len(array), -1)  # pictures, by their rows


def _label(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
