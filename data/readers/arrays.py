"""Arrays in files of NumPy or Apache Parquet."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_shares, reading
from ..store.places import Places
from ..task import InputKind, Missing, Task
from .columns import NAMES, columns_task
from .divide import SPLITS
from .supervised import Asked


@dataclass(frozen=True)
class ArraysConfig:
    """Sequences in arrays: `inputs` [n, L, c] or [n, L], `labels`, and optional arrays. A folder
    holds `train`, `validation` and `test` as separate files, or one file per array; a file has
    arrays for all, or `train_inputs`, `test_inputs` and so on.
    """

    kind: Asked | None = None
    """The kind of label. None: names and whole numbers are classes, other numbers are values."""
    input_kind: InputKind = "real"
    """Whether inputs are measured values or tokens."""
    missing: Missing = "refuse"
    """The meaning of NaN: an error, or a missing value."""
    validation: float = 0.15
    """Share for validation, if there are no files for it."""
    test: float = 0.2
    """Share for testing, if there are no files for it."""
    seed: int = 0
    """Seed of the split."""
    normalize: bool = True
    """Whether to scale each real channel to mean 0 and deviation 1 on the training split."""
    balance: bool = False
    """Whether all classes have equal weight in the loss, however rare."""

    def __post_init__(self):
        check_shares(self)


def load_arrays(path: Path, config: ArraysConfig, places: Places) -> Task:
    """The arrays in a file or a folder as a task."""
    del places
    return columns_task(path.stem, _read(path), config)


def array_task(inputs: Any, labels: Any, *, name: str = "arrays", **more: Any) -> Task:
    """A task from arrays in memory, split and normalised like arrays in a file.

    `inputs` are an array [n, L, c] or [n, L], or a list of arrays [L_i, c] of different lengths;
    `labels` one for each: names or whole numbers for classes, other numbers for values. `more` are
    the arrays `lengths`, `intervals`, `mask` and `label_mask`, and the options of `ArraysConfig`.
    ValueError for arrays that do not match.
    """
    given = {"inputs": inputs, "labels": labels}
    given |= {key: more.pop(key) for key in NAMES if key in more}
    return columns_task(name, {"train": given}, ArraysConfig(**more))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The arrays by split and name."""
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in READERS)
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        split = file.stem if file.stem in SPLITS else None
        for name, array in READERS[file.suffix.lower()](file).items():
            prefix, _, rest = name.partition("_")
            own = split or (prefix if prefix in SPLITS and rest else "train")
            called = rest if prefix in SPLITS and rest else name
            if called not in NAMES:
                raise ValueError(f"arrays must be called {', '.join(NAMES)}, got {name} in {file}")
            if called in found.setdefault(own, {}):
                raise ValueError(
                    f"split {own} must have one array {called}, got {name} in {file} too"
                )
            found[own][called] = array
    if "train" not in found:
        raise ValueError(f"there must be a split train, got {', '.join(found) or 'no arrays'}")
    return found


def _read_npz(file: Path) -> dict[str, Any]:
    with reading(file, "an .npz file of plain arrays"), file.open("rb") as content:
        arrays = np.load(content, allow_pickle=False)
        return dict(arrays)


def _read_npy(file: Path) -> dict[str, Any]:
    with reading(file, "an .npy file of a plain array"):
        array = np.load(file, allow_pickle=False)
    name = file.stem if file.stem not in SPLITS else "inputs"
    return {name: array}


def _read_parquet(file: Path) -> dict[str, Any]:
    """A row is a sequence; `inputs` are lists of numbers, or lists of lists of channels."""
    from pyarrow import parquet

    with reading(file, "a Parquet file of columns with names of their own"):
        table = parquet.read_table(file)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return {name: _column(name, values) for name, values in columns.items()}


def _column(name: str, values: list[Any]) -> Any:
    """A column as an array, or as a list where its rows differ in length."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O" and not any(isinstance(value, str) for value in values):
            array = array.astype(np.float64)  # NaN where there is nothing
        return array
    except (ValueError, TypeError):  # rows of several lengths
        pass
    try:
        return [np.asarray(value, np.float64) for value in values]
    except (ValueError, TypeError):
        raise ValueError(f"column {name} must hold numbers, or lists of them, got others") from None


READERS = {".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet}
