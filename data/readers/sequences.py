"""Sequences without labels, from the same kinds of files as labelled ones."""

from pathlib import Path
from typing import Any

import numpy as np

from ..task import InputKind, Split
from .arrays import READERS
from .audio import AudioConfig, read_recordings
from .ts import read_series

FORMATS = (*READERS, ".ts", ".wav")
"""Suffixes of the files; a folder holds recordings."""


def read_sequences(path: Path, config: Any, input_kind: InputKind) -> dict[str, np.ndarray]:
    """`inputs`, padded at their ends, and `lengths` and `intervals` where there are any.

    Arrays have these names in their file; other arrays, such as labels, are ignored. `config` are
    the settings of the training data, such as the features of recordings. Missing values are NaN.
    ValueError for another kind of file, and for one without sequences.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".wav":
        own = config if isinstance(config, AudioConfig) else AudioConfig()
        return _padded(read_recordings(path, own), path, input_kind)
    if suffix == ".ts":
        return _padded(read_series(path), path, input_kind)
    if suffix not in READERS:
        raise ValueError(f"{path} must be a file of {' '.join(FORMATS)}, got {suffix or 'none'}")
    found = READERS[suffix](path)
    if suffix == ".npy":
        found = dict(zip(["inputs"], found.values(), strict=True))
    if "inputs" not in found:
        raise ValueError(f"{path} must hold `inputs`, got {', '.join(found) or 'nothing'}")
    inputs = found["inputs"]
    if isinstance(inputs, list):
        return _padded(inputs, path, input_kind)
    if input_kind == "real" and inputs.ndim == 2:
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
