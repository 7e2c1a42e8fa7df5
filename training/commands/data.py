"""The data of a run: loaded as its configuration says, and identified by a fingerprint."""

import json
from pathlib import Path
from typing import Any

from data import Progress, Task, default_cache_dir, fingerprint, load_task

from ..reporting.events import write_json
from ..settings.config import RunConfig
from ..settings.errors import UsageError

FILE = "data.json"


def load_data(config: RunConfig[Any, Any], progress: Progress | None = None) -> Task:
    """The task of a run. Errors in its data become a `UsageError` in one line."""
    try:
        return load_task(
            config.task,
            config.data,
            data_dir=config.data_dir,
            cache_dir=config.cache_dir or default_cache_dir(),
            progress=progress,
        )
    except (ValueError, OSError, OverflowError, MemoryError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def note_data(folder: Path, config: RunConfig[Any, Any], task: Task) -> None:
    """Write the fingerprint of the run's data to `folder`."""
    counts = {name: len(split) for name, split in task.splits.items()}
    about = {"task": config.task, "fingerprint": fingerprint(task), "sequences": counts}
    write_json(folder / FILE, about)


def check_data(folder: Path, task: Task) -> None:
    """`UsageError` if the run in `folder` has other data than `task`.

    Runs of older versions without a fingerprint are accepted.
    """
    file = folder / FILE
    if not file.exists():
        return
    try:
        noted = json.loads(file.read_text())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} must be JSON with a fingerprint, got: {error}") from None
    found = fingerprint(task)
    if found != noted:
        raise UsageError(
            f"the data of {folder} must be the data that the run began with, got other data under "
            f"the name {task.name} (fingerprint {found[:12]} instead of {noted[:12]})"
        )
