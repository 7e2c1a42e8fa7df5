"""The tasks by name."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .builtin.aan import AANConfig, load_aan
from .builtin.charlm import CharLMConfig, load_charlm
from .builtin.digits import DigitsConfig, load_digits
from .builtin.imdb import IMDBConfig, load_imdb
from .builtin.listops import ListOpsConfig, load_listops
from .builtin.mqar import MQARConfig, load_mqar
from .builtin.pathfinder import PathfinderConfig, PathXConfig, load_pathfinder, load_pathx
from .builtin.pendulum import PendulumConfig, load_pendulum
from .builtin.scifar import SCIFARConfig, load_scifar
from .builtin.smnist import SMNISTConfig, load_smnist
from .readers.named import OWN, full_name, is_own, own_entry, short_name
from .store.entry import TaskEntry
from .store.places import Places
from .task import Progress, Task
from .typing import checked

_ENTRIES: dict[str, TaskEntry] = {
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
    "mqar": TaskEntry(MQARConfig, load_mqar),
}

TASKS: Mapping[str, TaskEntry] = MappingProxyType(_ENTRIES)
"""All tasks by name: built-in ones, and those that `register_task` has added."""


def register_task(name: Any, config_class: Any, load: Any) -> None:
    """Add a task of your own to `TASKS`, for this process.

    `config_class` is a dataclass whose fields all have defaults; the fields are the task's options
    on the command line. `load(config, places)` returns the task; `places` holds the folders of its
    files and of prepared data. ValueError for a name that is taken or not valid, TypeError for
    another kind of `config_class` or `load`.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(f"`name` must be small letters, digits, - and _, got {name!r}")
    if name in _ENTRIES:
        raise ValueError(f"`name` must be new, got {name!r}, which is taken")
    if not isinstance(config_class, type) or not is_dataclass(config_class):
        raise TypeError(f"`config_class` must be a dataclass, got {config_class!r}")
    for each in fields(config_class):
        if each.init and each.default is MISSING and each.default_factory is MISSING:
            raise TypeError(
                f"`config_class` must have a default for every field, got {config_class.__name__}."
                f"{each.name} without one"
            )
    if not callable(load):
        raise TypeError(f"`load` must be a function of a config and places, got {load!r}")
    function: Any = load
    _ENTRIES[name] = TaskEntry(config_class, function)


@checked
def task_entry(name: str) -> TaskEntry:
    """The entry of the task `name`, which may be the user's own data (docs/how-to/data.md).

    ValueError with a list of the names if there is none.
    """
    if name not in TASKS:
        if is_own(name):
            return own_entry(name)
        near = difflib.get_close_matches(str(name), TASKS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, got {name!r}{hint} ({OWN})")
    return TASKS[name]


@checked
def check_task(name: str) -> None:
    """ValueError unless `name` is a task or may be your own data."""
    if not is_own(name):
        task_entry(name)


@checked
def kept_name(name: str) -> str:
    """The name of a task in a run's configuration: names of own data become absolute."""
    return name if name in TASKS or not is_own(name) else full_name(name)


@checked
def task_label(name: str) -> str:
    """The display name of a task, also for folders: the last part of own data."""
    return name if name in TASKS else short_name(name)


@checked
def import_builders() -> None:
    """Import what prepares data (tensorflow-datasets, 0.5 s), if that has not happened.

    Call it before `load_task` if a live display refreshes itself in another thread: the import
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
    """The task `name` with its data in memory, which is prepared on first use. `config` is the
    task's configuration (None: its defaults). `data_dir` is a folder with the task's official raw
    files. Without it, data that has been prepared before is used; otherwise files are downloaded or
    data is generated. `cache_dir` is where prepared data is kept (None:
    `store.default_cache_dir()`). `progress(done, total, what)` is called during long work.

    Raises ValueError for an unknown name, a configuration of another task or damaged files,
    FileNotFoundError if `data_dir` lacks files, or without it if nothing can be downloaded.
    """
    entry = task_entry(name)
    config = entry.config_class() if config is None else config
    if not isinstance(config, entry.config_class):
        raise ValueError(
            f"`config` of task {name} must be a {entry.config_class.__name__}, got {config!r}"
        )
    return entry.load(config, Places(data_dir, cache_dir, progress))
