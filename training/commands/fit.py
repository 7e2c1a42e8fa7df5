"""A run from Python, in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from data import Task
from data.readers.stored import StoredConfig, check_storable

from ..finished.load import load_run
from ..finished.trained import TrainedRun
from ..settings.command import Command
from ..settings.given import check_given, names_in
from ..settings.options import with_options
from ..settings.presets import preset
from ..settings.saved import complete
from ..settings.tuned import settle_later, tuned
from .train import execute, new_folder

DATA = "data"
"""Folder of a run with the data of a task that was in memory."""


def fit(
    task: Task | str | Path,
    model: str = "s5",
    *,
    out: Path | str | None = None,
    console: Console | None = None,
    **settings: Any,
) -> TrainedRun:
    """Train `model` on `task` with compression, and return the trained model.

    `task` is a task in memory, of which the run directory keeps a copy, or a value of `--task`: the
    name of a task, a file, a folder, `module:function`. `settings` are those of the command line,
    `steps=500` or `network={"d_model": 32}`; for a task without presets, the others follow from the
    size of its data. `out` is the run directory (None: a new one under runs/), with the same files
    as from `scripts/train.py`. Progress is shown on `console` (None: standard output).

    Raises `UsageError`, a ValueError, in one sentence before anything is trained, and `Interrupted`
    on Ctrl-C, after saving: `scripts/train.py --resume` continues.
    """
    command = _command(task, model, None if out is None else Path(out), settings)
    folder = execute(command, Console() if console is None else console)
    run = load_run(folder)
    return replace(run, task=task) if isinstance(task, Task) else run


def _command(
    task: Task | str | Path, model: str, out: Path | None, settings: dict[str, Any]
) -> Command:
    if not isinstance(task, Task):
        given = {"model": model, "task": str(task), **settings}
        config = complete(given)
        check_given(names_in(settings), config)
        return Command(config, out, resume=False, settle=settle_later(given, None, ()))
    check_storable(task)
    out = new_folder(model, task.name, settings.get("seed", 0)) if out is None else out
    start = tuned(task, model)
    place = str((out / DATA).absolute())
    config = with_options(preset(model, place, "small", start, data=StoredConfig()), settings)
    check_given(names_in(settings), config)
    return Command(config, out, resume=False, task=task)
