"""The tasks by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .builtin.aan import AANConfig, load_aan
from .builtin.charlm import CharLMConfig, load_charlm
from .builtin.digits import DigitsConfig, load_digits
from .builtin.imdb import IMDBConfig, load_imdb
from .builtin.listops import ListOpsConfig, load_listops
from .builtin.pathfinder import PathfinderConfig, PathXConfig, load_pathfinder, load_pathx
from .builtin.pendulum import PendulumConfig, load_pendulum
from .builtin.scifar import SCIFARConfig, load_scifar
from .builtin.smnist import SMNISTConfig, load_smnist
from .store.places import Places
from .task import Progress, Task


@dataclass(frozen=True)
class TaskEntry:
    """A task's config dataclass, and the function that turns one into the task."""

    config_class: type
    load: Callable[[Any, Places], Task]


TASKS: Mapping[str, TaskEntry] = MappingProxyType(
    {
        "smnist": TaskEntry(SMNISTConfig, load_smnist),
        "scifar": TaskEntry(SCIFARConfig, load_scifar),
        "listops": TaskEntry(ListOpsConfig, load_listops),
        "imdb": TaskEntry(IMDBConfig, load_imdb),
        "aan": TaskEntry(AANConfig, load_aan),
        "pathfinder": TaskEntry(PathfinderConfig, load_pathfinder),
        "pathx": TaskEntry(PathXConfig, load_pathx),
        "digits": TaskEntry(DigitsConfig, load_digits),
        "charlm": TaskEntry(CharLMConfig, load_charlm),
        "pendulum": TaskEntry(PendulumConfig, load_pendulum),
    }
)


def task_entry(name: str) -> TaskEntry:
    """The entry of the task `name`; ValueError listing the names when there is none."""
    if name not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


def import_builders() -> None:
    """Import what prepares data (tensorflow-datasets, 0.5 s), if that has not happened.

    To be called before `load_task` wherever a live display refreshes itself meanwhile: the import
    replaces `builtins.__import__` for a moment, in which no other thread can import anything.
    """
    from .store import builder  # noqa: F401


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
    task's official raw files; without it what has been prepared before is taken, else the files are
    downloaded or the data is made. `cache_dir` is where
    prepared data is kept (None: `store.default_cache_dir()`). `progress(done, total, what)` is
    called during long work.

    Raises ValueError for an unknown name, a config of another task or damaged files,
    FileNotFoundError when `data_dir` lacks files, or without it nothing is there and nothing can be
    downloaded.
    """
    entry = task_entry(name)
    config = entry.config_class() if config is None else config
    if not isinstance(config, entry.config_class):
        raise ValueError(
            f"config of task {name} must be a {entry.config_class.__name__}, got {config!r}"
        )
    return entry.load(config, Places(data_dir, cache_dir, progress))
