"""The user's own data as tasks: a function, a file, a folder, a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..store.entry import TaskEntry
from ..store.places import Places
from ..task import Task
from .arrays import ArraysConfig, load_arrays
from .audio import AudioConfig, load_audio
from .function import function_entry
from .libraries import SAVED, DatasetConfig, load_saved, load_tfds
from .series import SeriesConfig, load_series
from .stored import FILE as STORED
from .stored import StoredConfig, load_stored
from .text import TextConfig, load_text
from .ts import TimeSeriesConfig, load_time_series

TFDS = "tfds:"

OWN = (
    "or your own data: package.module:function, FILE.py:function, a file (.npz .npy .parquet .csv "
    ".ts .txt .md), a folder, or tfds:NAME"
)
"""The forms of a task besides a name, for error messages."""


@dataclass(frozen=True)
class Format:
    """The recognition and the reader of one kind of data."""

    suffixes: tuple[str, ...]
    """Of a file, or of files in a folder."""
    config_class: type
    load: Callable[[Path, Any, Places], Task]


FORMATS: tuple[Format, ...] = (
    Format((".ts",), TimeSeriesConfig, load_time_series),
    Format((".wav",), AudioConfig, load_audio),
    Format((".npz", ".npy", ".parquet"), ArraysConfig, load_arrays),
    Format((".csv",), SeriesConfig, load_series),
    Format((".txt", ".md"), TextConfig, load_text),
)
"""A folder is of the first format whose files it holds."""
MOST_FILES = 1_000_000
"""Most files, and folders, in the folder of a task."""


def is_own(name: str) -> bool:
    """Whether `name` is the user's own data: by its form, or because such a file exists."""
    if not name.strip() or "\0" in name:
        return False
    try:
        return any(sign in name for sign in (":", "/", ".")) or Path(name).exists()
    except OSError:
        return False


def full_name(name: str) -> str:
    """`name` as a run keeps it: files and folders by their absolute paths."""
    where, colon, what = name.rpartition(":")
    if name.startswith(TFDS):
        return name
    if colon:
        is_file = Path(where).suffix == ".py"
        return f"{Path(where).expanduser().resolve()}:{what}" if is_file else name
    return str(Path(name).expanduser().resolve())


def short_name(name: str) -> str:
    """The display name of own data: the function, or the file without its suffix."""
    if name.startswith(TFDS):
        return name.removeprefix(TFDS).replace("/", "-").replace(":", "-")
    return name.rpartition(":")[2] if ":" in name else Path(name).stem


def own_entry(name: str) -> TaskEntry:
    """The user's own data `name` as a task. ValueError if it does not exist or cannot be read."""
    if name.startswith(TFDS):
        return TaskEntry(DatasetConfig, partial(load_tfds, name.removeprefix(TFDS)))
    return function_entry(full_name(name)) if ":" in name else _path_entry(full_name(name))


def _path_entry(name: str) -> TaskEntry:
    path = Path(name)
    try:
        there = path.exists()
        found = _format_of(path) if there else None
    except OSError as error:  # a name that is too long, a folder that is not ours
        raise ValueError(f"`task` {name[:200]} must be readable, got: {error.strerror}") from None
    if found is None:
        raise ValueError(f"`task` {name}: there is no such file or folder")
    return TaskEntry(found.config_class, partial(_load, found, path))


def _format_of(path: Path) -> Format:
    there = {path.suffix.lower()}
    if path.is_dir():
        if (path / STORED).is_file():
            return Format((), StoredConfig, load_stored)
        if any((path / name).is_file() for name in SAVED):
            return Format((), DatasetConfig, load_saved)
        there = _suffixes_in(path)
    for each in FORMATS:
        if there & set(each.suffixes):
            return each
    known = " ".join(suffix for each in FORMATS for suffix in each.suffixes)
    raise ValueError(f"`task` {path} must be, or hold, files of one of {known}, got none")


def _suffixes_in(folder: Path) -> set[str]:
    """The suffixes of the files in a folder. ValueError for one that is too large to hold a task,
    such as the root."""
    found = set()
    for count, file in enumerate(folder.rglob("*")):
        if count >= MOST_FILES:
            raise ValueError(f"`task` {folder} must have at most {MOST_FILES} files, got more")
        if file.is_file():
            found.add(file.suffix.lower())
    return found


def _load(found: Format, path: Path, config: Any, places: Places) -> Task:
    try:
        return found.load(path, config, places)
    except (ValueError, OSError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"`task` {path}: {said}") from error
