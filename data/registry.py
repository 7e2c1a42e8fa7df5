"""The tasks by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .digits import DigitsConfig, load_digits
from .pathfinder import PathfinderConfig, load_pathfinder
from .smnist import SMNISTConfig, load_smnist
from .task import Progress, Task


@dataclass(frozen=True)
class TaskEntry:
    """A task's config dataclass, and the function that turns one into the task."""

    config_class: type
    load: Callable[..., Task]
    """`load(config, data_dir=..., cache_dir=..., progress=...)`."""


TASKS: Mapping[str, TaskEntry] = MappingProxyType(
    {
        "pathfinder": TaskEntry(PathfinderConfig, load_pathfinder),
        "digits": TaskEntry(DigitsConfig, load_digits),
        "smnist": TaskEntry(SMNISTConfig, load_smnist),
    }
)


def task_entry(name: str) -> TaskEntry:
    """The entry of the task `name`; ValueError listing the names when there is none."""
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


def load_task(
    name: str,
    config: Any = None,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """The task `name` with its data in memory, prepared first where that has not been done before.

    `config` is the task's config dataclass (None: its defaults). `data_dir` is a folder with the
    task's official raw files; without it the task makes or finds its own data. `cache_dir` is where
    prepared data is kept (None: `store.default_cache_dir()`). `progress(done, total, what)` is
    called during long work.

    Raises ValueError for an unknown name or a config of another task, FileNotFoundError when
    `data_dir` lacks files.
    """
    entry = task_entry(name)
    config = entry.config_class() if config is None else config
    if not isinstance(config, entry.config_class):
        raise ValueError(
            f"config of task {name} must be a {entry.config_class.__name__}, got {config!r}"
        )
    return entry.load(config, data_dir=data_dir, cache_dir=cache_dir, progress=progress)
