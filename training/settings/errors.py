"""Mistakes of the user: how they are named, and checks of the folders that a command is given."""

import os
from pathlib import Path


class UsageError(ValueError):
    """Something is wrong with what the user typed; the message says what to do."""


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Raise the ValueError that names an argument, its value and what is allowed, unless `ok`."""
    if not ok:
        raise ValueError(f"{name}={value}, allowed: {allowed}")


def check_writable(option: str, folder: Path) -> None:
    """`UsageError` unless `folder`, named by `option`, is one to write into, or can be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{option} {folder}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {folder}: {there} cannot be written to")


def check_new(option: str, folder: Path, instead: str = "") -> None:
    """`UsageError` unless `folder`, named by `option`, can be written into and covers nothing.

    `instead` is what else the user can do where it holds files.
    """
    check_writable(option, folder)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{option} {folder} holds files, allowed: a new or an empty folder{instead}"
        )
