"""Sequences without labels, from the same kinds of files as labelled ones."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..task import InputKind, Split, Task
from .arrays import READERS
from .audio import AudioConfig, read_recordings
from .libraries import SAVED, DatasetConfig, read_saved
from .series import SeriesConfig, read_windows
from .text import SUFFIXES as TEXTS
from .text import read_text
from .ts import read_series

FORMATS = (*READERS, ".ts", ".csv", *TEXTS, ".wav")
"""Suffixes of the files; a folder holds recordings, texts, or what `datasets` has saved."""


def read_sequences(path: Path, config: Any, task: Task) -> dict[str, np.ndarray]:
    """`inputs`, padded at their ends, and `lengths` and `intervals` where there are any.

    They are read for a model of `task`; `config` are the settings that the data of the training
    were read with: which column is the time, how recordings become steps. Arrays are called so in
    their file; what else it holds, labels say, is left aside. A series (CSV) gives a window that
    ends at each row, whose times are `rows`. Missing values are NaN. ValueError in one sentence for
    another file, and for one without sequences.
    """
    suffix, kind = path.suffix.lower(), task.input_kind
    if path.is_dir() and any((path / name).is_file() for name in SAVED):
        return _padded(read_saved(path, _options(DatasetConfig, config)), path, kind)
    if suffix in TEXTS or (path.is_dir() and task.kind == "language"):
        if kind != "tokens":
            raise ValueError(f"{path} must hold numbers for a model of real inputs, got text")
        return read_text(path, task)
    if suffix == ".csv" or (path.is_dir() and task.targets is not None):
        if task.targets is None:
            raise ValueError(f"{path} must be another file for a model of no series, got CSV")
        return read_windows(path, _options(SeriesConfig, config), task)
    if path.is_dir() or suffix == ".wav":
        return _padded(read_recordings(path, _options(AudioConfig, config)), path, kind)
    if suffix == ".ts":
        return _padded(read_series(path), path, kind)
    if suffix not in READERS:
        raise ValueError(f"{path} must be a file of {' '.join(FORMATS)}, got {suffix or 'none'}")
    return _arrays(path, suffix, kind)


T = TypeVar("T")


def _options(kind: Callable[..., T], config: Any) -> T:
    """The options of a format with the values that `config` has for them.

    A run whose data are gone keeps them in a class of no name.
    """
    known: Any = kind
    values = {f.name: getattr(config, f.name) for f in fields(known) if hasattr(config, f.name)}
    return kind(**{name: tuple(x) if isinstance(x, list) else x for name, x in values.items()})


def _arrays(path: Path, suffix: str, kind: InputKind) -> dict[str, np.ndarray]:
    found = READERS[suffix](path)
    if suffix == ".npy":
        found = dict(zip(["inputs"], found.values(), strict=True))
    if "inputs" not in found:
        raise ValueError(f"{path} must hold `inputs`, got {', '.join(found) or 'nothing'}")
    inputs = found["inputs"]
    if isinstance(inputs, list):
        return _padded(inputs, path, kind)
    if kind == "real" and inputs.ndim == 2:
        inputs = inputs[..., None]
    rest = {name: found[name] for name in ("lengths", "intervals") if name in found}
    return {"inputs": inputs, **{name: np.asarray(each) for name, each in rest.items()}}


def _padded(sequences: list[np.ndarray], path: Path, kind: InputKind) -> dict[str, np.ndarray]:
    if not sequences:
        raise ValueError(f"{path} must hold a sequence or more, got none")
    labels = np.zeros(len(sequences), np.int32)
    split = Split.from_sequences(sequences, labels, missing="mask", input_kind=kind)
    inputs = split.inputs
    if split.mask is not None:
        inputs = np.where(split.mask, inputs, np.nan).astype(np.float32)
        within = np.arange(inputs.shape[1]) < _lengths(split)[:, None]
        inputs = np.where(within[..., None], inputs, 0)
    return {"inputs": inputs, **({} if split.lengths is None else {"lengths": split.lengths})}


def _lengths(split: Split) -> np.ndarray:
    return np.full(len(split), split.inputs.shape[1]) if split.lengths is None else split.lengths
