"""Tasks in memory, stored in a folder and read again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..store.places import Places
from ..task import Split, Task
from ..task.split import PARTS
from ..typing import checked

FILE = "stored-task.json"
FORMAT = 1
MOST_BYTES = 2**31
"""Largest task that is stored. For larger ones, name the function or file that makes the task."""


@dataclass(frozen=True)
class StoredConfig:
    """A stored task. It has no options."""


@checked
def check_storable(task: Task) -> None:
    """ValueError for a task that is too large to be kept."""
    found = [getattr(split, part) for split in task.splits.values() for part in PARTS]
    total = sum(array.nbytes for array in found if array is not None)
    if total > MOST_BYTES:
        raise ValueError(
            f"task {task.name} must have at most {MOST_BYTES / 1e9:.1f} GB to be kept beside its "
            f"run, got {total / 1e9:.1f} GB: give the name of the file or function it is made from"
        )


@checked
def save_task(task: Task, folder: Path) -> None:
    """Keep `task` in a new folder: its arrays as .npy, all else as JSON. `--task FOLDER` reads it.

    ValueError for a task of more than 2 GB, such as long text in windows: name its file or function
    instead.
    """
    arrays = {
        f"{name}-{part}.npy": array
        for name, split in task.splits.items()
        for part in PARTS
        if (array := getattr(split, part)) is not None
    }
    check_storable(task)
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / name, array)
    about = {
        "format": FORMAT,
        "task": {f.name: getattr(task, f.name) for f in fields(Task) if f.name != "splits"},
        "splits": {
            name: {
                "parts": [part for part in PARTS if getattr(split, part) is not None],
                "input_kind": split.input_kind,
                "offset": np.asarray(split.offset).tolist(),
                "scale": np.asarray(split.scale).tolist(),
            }
            for name, split in task.splits.items()
        },
    }
    (folder / FILE).write_text(json.dumps(about, indent=2, default=_plain) + "\n")


def load_stored(path: Path, config: StoredConfig, places: Places) -> Task:
    """The task in a folder that `save_task` has written."""
    del config, places
    try:
        about = json.loads((path / FILE).read_text())
        if about["format"] != FORMAT:
            raise ValueError(f"it is of format {about['format']}")
        settings = {name: _tuples(value) for name, value in about["task"].items()}
        splits = {name: _split(path, name, each) for name, each in about["splits"].items()}
        return Task(**settings, splits=splits)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{path / FILE} must be as save_task writes it, got: {error}") from error


def _split(path: Path, name: str, about: Mapping[str, Any]) -> Split:
    arrays = {part: np.load(path / f"{name}-{part}.npy") for part in about["parts"]}
    return Split(
        **arrays,
        input_kind=about["input_kind"],
        offset=_number(about["offset"]),
        scale=_number(about["scale"]),
    )


def _number(value: Any) -> Any:
    return np.asarray(value, np.float32) if isinstance(value, list) else float(value)


def _plain(value: Any) -> Any:
    """Mappings and NumPy numbers as types of JSON."""
    return dict(value) if isinstance(value, Mapping) else value.item()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
