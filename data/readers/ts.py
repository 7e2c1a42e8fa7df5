"""Time series in the format of the UEA and UCR archives (`.ts`).

A header of lines that begin with @, then a line for each case: its dimensions, separated by colons,
each of values separated by commas, and the class or the target at the end (Löning et al. 2019;
https://www.timeseriesclassification.com).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks import check_shares, float32
from ..store.places import Places
from ..task import Missing, Split, Task
from .supervised import Labelled, supervised_task

SUFFIXES = {"_TRAIN": "train", "_TEST": "test", "_VALIDATION": "validation"}


@dataclass(frozen=True)
class TimeSeriesConfig:
    """Series of the UEA and UCR archives; `NAME_TRAIN.ts` and `NAME_TEST.ts` belong together."""

    missing: Missing = "mask"
    """The meaning of ?: a missing value, or an error."""
    validation: float = 0.15
    """Share of the training series for validation."""
    test: float = 0.2
    """Share for testing, if there is no file for it."""
    seed: int = 0
    """Seed of the split."""
    normalize: bool = True
    """Whether to scale each channel to mean 0 and deviation 1 on the training split."""
    balance: bool = False
    """Whether all classes have equal weight in the loss, however rare."""

    def __post_init__(self):
        check_shares(self)


@dataclass(frozen=True)
class _Cases:
    series: list[np.ndarray]
    labels: list[str]
    classify: bool


def load_time_series(path: Path, config: TimeSeriesConfig, places: Places) -> Task:
    """The series in a file, with those in the file for testing, or in a folder, as a task."""
    del places
    name, files = _files(path)
    parts = {split: _read(file) for split, file in files.items()}
    classify = {part.classify for part in parts.values()}
    if len(classify) > 1:
        raise ValueError("all files must have classes, or all must have targets, got both")
    labelled = {split: _labelled(part, config) for split, part in parts.items()}
    return supervised_task(
        name, "classification" if classify == {True} else "values", labelled, config
    )


def _files(path: Path) -> tuple[str, dict[str, Path]]:
    """The name of the problem, and the files by split."""
    there = sorted(path.glob("*.ts")) if path.is_dir() else [path]
    names = {_problem(file)[0] for file in there}
    if len(names) != 1:
        got = ", ".join(sorted(names)) or "none right in it"
        raise ValueError(f"there must be one problem in the folder, got {got}")
    name = names.pop()
    folder = path if path.is_dir() else path.parent
    found = {
        _problem(file)[1]: file for file in sorted(folder.glob("*.ts")) if _problem(file)[0] == name
    }
    if "train" not in found:
        raise ValueError(f"there must be a file {name}_TRAIN.ts or {name}.ts, got {there[0].name}")
    return name, found


def _problem(file: Path) -> tuple[str, str]:
    """The name of the problem and the split of a file."""
    for ending, split in SUFFIXES.items():
        if file.stem.upper().endswith(ending):
            return file.stem[: -len(ending)], split
    return file.stem, "train"


def read_series(file: Path) -> list[np.ndarray]:
    """The series [L, channels] of the cases in a file, whatever their labels."""
    return _read(file).series


def _read(file: Path) -> _Cases:
    header: dict[str, list[str]] = {}
    series, labels, begun = [], [], False
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith(("#", "%")):
            continue
        if not begun:
            if not line.startswith("@"):
                raise ValueError(f"{file.name}, line {number}: the header must end with @data")
            name, *values = line[1:].lower().split() or [""]
            header[name] = values
            begun = name == "data"
            continue
        try:
            case, label = _case(line)
        except ValueError as error:
            raise ValueError(f"{file.name}, line {number}: {error}") from None
        series.append(case)
        labels.append(label)
    if not series:
        raise ValueError(f"{file.name} must hold a case or more after @data, got none")
    if header.get("timestamps", [])[:1] == ["true"]:
        raise ValueError(f"{file.name} must have @timeStamps false, got true")
    classify = header.get("classlabel", [])[:1] == ["true"]
    if not classify and header.get("targetlabel", [])[:1] != ["true"]:
        raise ValueError(f"{file.name} must have @classLabel true or @targetLabel true")
    return _Cases(series, labels, classify)


def _case(line: str) -> tuple[np.ndarray, str]:
    """A case [L, channels], and the label at its end."""
    *dimensions, label = line.split(":")
    if not dimensions or not label.strip():
        raise ValueError("a case must have values and a label, separated by a colon")
    columns = [np.array([_number(x.strip()) for x in one.split(",")]) for one in dimensions]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"dimensions must be equally long, got {sorted(lengths)}")
    case = np.stack(columns, axis=-1)
    there = np.flatnonzero(np.isfinite(case).any(axis=1))
    if not len(there):
        raise ValueError("a case must have a value, got none")
    return case[: there[-1] + 1], label.strip()  # what follows is padding in some archives


def _number(word: str) -> float:
    """The number that a word is; NaN where it is missing."""
    if word in ("?", ""):
        return np.nan
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"values must be numbers or ?, got {word[:40]!r}") from None


def _labelled(cases: _Cases, config: TimeSeriesConfig) -> Labelled:
    names = np.asarray(cases.labels) if cases.classify else None
    labels = np.zeros(len(cases.labels), np.int32)
    if names is None:
        labels = float32([_number(label) for label in cases.labels])
    split = Split.from_sequences(cases.series, labels, missing=config.missing)
    return Labelled(split, names)
