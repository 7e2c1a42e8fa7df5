"""Mistakes of the user: how they are named, and checks of the folders that a command is given."""

import os
from pathlib import Path


class UsageError(ValueError):
    """Something is wrong with what the user typed; the message says what to do."""


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise the ValueError that names an argument, its value and what is allowed, unless `ok`.

    `allowed` goes on after "must be": "1 or more", "in [0, 1)".
    """
    if not ok:
        shown = repr(value) if isinstance(value, str) else value
        raise ValueError(f"`{name}` must be {allowed}, got {shown}")


def check_writable(option: str, folder: Path) -> None:
    """`UsageError` unless `folder`, named by `option`, is one to write into, or can be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{option} {folder} cannot be used: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {folder} cannot be used: {there} cannot be written to")


def check_new(option: str, folder: Path, instead: str = "") -> None:
    """`UsageError` unless `folder`, named by `option`, can be written into and covers nothing.

    `instead` is what else the user can do where it holds files.
    """
    check_writable(option, folder)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{option} must be a new or an empty folder, {folder} holds files{instead}"
        )
