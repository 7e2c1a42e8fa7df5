"""Errors for users' mistakes, and checks of a command's folders."""

import dataclasses
import difflib
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.checks import check_kinds


class UsageError(ValueError):
    """A mistake in the user's command; the message says what to do."""


LONGEST_SHOWN = 80
"""Characters of a value that a message repeats."""

TOO_LARGE = 2**31
"""Bound of whole numbers that fit the size of an array and the value of a counter."""

_ROOM = "checkpoints/" + "0" * 100
"""About the longest name that a run gives to a file in its folder."""


def shown(value: object) -> str:
    """A value as a message shows it: in one line, cut where it is long."""
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except (ValueError, RecursionError):  # a number of 5000 digits
        text = f"a long {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise the ValueError that names an argument, its value and what is allowed, unless `ok`.

    `allowed` goes on after "must be": "1 or more", "in [0, 1)".
    """
    if not ok:
        raise ValueError(f"`{name}` must be {allowed}, got {shown(value)}")


def nearest(value: str, choices: Iterable[str]) -> str:
    """The end of a message about `value`: the nearest choice, if one is near."""
    near = difflib.get_close_matches(value, list(choices), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise the ValueError that lists the choices, and names the nearest, unless `value` is one."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of {', '.join(choices)}, got {shown(value)}"
            f"{nearest(value, choices)}"
        )


def check_numbers(config: Any, prefix: str = "") -> None:
    """ValueError unless the fields of a dataclass are of their kinds, their numbers finite, and
    whole ones below `TOO_LARGE`.

    A float whose default is infinite may be so. `prefix` comes before the names of the fields.
    """
    for field in dataclasses.fields(config):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if isinstance(value, float):
            is_number = math.isfinite(value) or value == field.default
            require(is_number, name, value, "a finite number")
        elif isinstance(value, int) and "seed" not in field.name:
            require(abs(value) < TOO_LARGE, name, value, f"below {TOO_LARGE}")
    check_kinds(config, prefix)


@contextmanager
def as_written(file: Path, what: str = "as a run has written it") -> Iterator[None]:
    """Whatever goes wrong with the content of `file` inside this context as a `UsageError` in one
    sentence: it must be `what`.

    A file that somebody has changed gives errors of all kinds: a key that is missing, a name in the
    place of a number, those of the library that reads checkpoints.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__} "
        raise UsageError(f"{file} must be {what}, got: {kind}{said}") from error


def check_writable(option: str, folder: Path) -> None:
    """`UsageError` unless `folder`, named by `option`, is one to write into, or can be made.

    A test folder is made beside it and removed again: some places, such as `/proc`, cannot be
    checked otherwise.
    """
    try:
        os.lstat(folder.absolute() / _ROOM)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise _unusable(option, folder, error) from None
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists() or p.is_symlink())
    if not there.is_dir():
        raise UsageError(
            f"{option} {_short(folder)} cannot be used: {_short(there)} is not a folder"
        )
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=there))
    except OSError:
        raise UsageError(
            f"{option} {_short(folder)} cannot be used: {_short(there)} cannot be written to"
        ) from None


def check_new(option: str, folder: Path, instead: str = "") -> None:
    """`UsageError` unless `folder`, named by `option`, is writable and empty. `instead` is the
    alternative for the user if it holds files.
    """
    check_writable(option, folder)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{option} must be a new or an empty folder, {folder} holds files{instead}"
        )


def check_cache(folder: Path | None) -> None:
    """`UsageError` unless prepared data can be kept in `folder`, which `--cache-dir` names."""
    if folder is not None:
        check_writable("--cache-dir", folder.expanduser())


def _unusable(option: str, folder: Path, error: OSError | ValueError) -> UsageError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"{option} {_short(folder)} cannot be used: {why}")


def _short(path: Path) -> str:
    """A path, cut where it is long."""
    text = str(path)
    return text if len(text) <= 200 else f"{text[:100]}...{text[-60:]}"
