"""The description of a task that is stored beside a model: everything except the data."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from data.task import Split, Task

from ..reporting.events import write_json
from ..settings.errors import UsageError

FILE = "task.json"

SPLITS = ("train", "validation", "test")


def describe_task(task: Task) -> dict[str, Any]:
    """`task` in the types of JSON: its settings, and how its splits hold and normalise a sequence.

    Of the data itself, only the number of sequences is included.
    """
    train = task.splits["train"]
    one = train.select(slice(0, 1))
    columns, settings = {}, {}
    for name in _names(Split):
        value = getattr(one, name)
        if value is not getattr(train, name):  # one row of many
            columns[name] = {"dtype": value.dtype.name, "shape": list(value.shape[1:])}
        else:
            settings[name] = _plain(value)
    about = {name: _plain(getattr(task, name)) for name in _names(Task) if name != "splits"}
    counts = {name: len(split) for name, split in task.splits.items()}
    return {"task": about, "split": settings, "sequence": columns, "sequences": counts}


def blank_task(kept: Mapping[str, Any]) -> Task:
    """The task that `describe_task` has described, with one sequence of zeros in each split.
    ValueError for other content.
    """
    try:
        columns = {name: _one_row(name, **column) for name, column in kept["sequence"].items()}
        settings = {name: _value(value) for name, value in kept["split"].items()}
        about = {name: _value(value) for name, value in kept["task"].items()}
        return Task(**about, splits=dict.fromkeys(SPLITS, Split(**columns, **settings)))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the task must be described as this version does, got {error}") from None


def keep_task(folder: Path, task: Task) -> None:
    """Write the description of `task` to `folder`."""
    write_json(folder / FILE, describe_task(task))


def read_kept_task(folder: Path) -> dict[str, Any]:
    """The description that `keep_task` has written. `UsageError` if it is missing or damaged."""
    file = folder / FILE
    if not file.is_file():
        raise UsageError(
            f"{file} is missing: {folder} is a run of an earlier version, give its task with it "
            "(load_run(folder, task=...))"
        )
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} must be JSON, got: {error}") from None
    if not isinstance(kept, dict):
        raise UsageError(f"{file} must hold an object, got a {type(kept).__name__}")
    return kept


def _names(kind: Any) -> list[str]:
    return [each.name for each in fields(kind) if each.init]


def _plain(value: Any) -> Any:
    """`value` in the types of JSON; an array says its type."""
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "values": value.tolist()}
    if isinstance(value, Mapping):
        return {"mapping": {str(name): _plain(each) for name, each in value.items()}}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _value(told: Any) -> Any:
    """Inverse of `_plain`; lists become tuples."""
    if isinstance(told, list):
        return tuple(_value(each) for each in told)
    if isinstance(told, dict) and "dtype" in told:
        return np.array(told["values"], told["dtype"])
    if isinstance(told, dict):
        return {name: _value(each) for name, each in told["mapping"].items()}
    return told


def _one_row(name: str, dtype: str, shape: list[int]) -> np.ndarray:
    """Zeros; where zero means nothing, as for a length or an interval, ones."""
    fill = np.zeros if name in ("inputs", "labels") else np.ones
    return fill((1, *shape), dtype)
