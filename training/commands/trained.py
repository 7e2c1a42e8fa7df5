"""Models of earlier runs, loaded from their run directories."""

from pathlib import Path
from typing import Any, Literal

import equinox as eqx

from data.task import Task

from ..finished.load import check_run
from ..run.clock import Clock
from ..run.loop import Run
from ..settings.config import RunConfig
from ..settings.errors import UsageError, as_written
from ..settings.saved import read_config
from .data import check_data


def check_trained(config: RunConfig[Any, Any]) -> None:
    """`UsageError` unless the teacher, if there is one, has finished a run on the same data."""
    folder = config.distillation.teacher
    if folder is None:
        return
    check_run(folder)
    found = read_config(folder)
    if found.task != config.task:
        raise UsageError(f"{folder} must be a run on {config.task}, it is one on {found.task}")
    for name, wanted in vars(config.data).items():
        has = getattr(found.data, name)
        if has != wanted and name != "workers":  # else it may have learned what is tested here
            raise UsageError(f"{folder} must be a run with `data.{name}` {wanted}, it has {has}")


def restored_run(folder: Path, task: Task, at: Literal["best", "last"] = "best") -> Run:
    """The run in `folder` at its best validation step after the last cut, or at its last step. A
    run without a best state (`loop.keep_best`) is at its last step. ValueError if it has no
    checkpoint.
    """
    config = read_config(folder)
    check_data(folder, task)
    run = Run(config, task, folder, Clock())
    try:
        restored = run.saves.restore()
        if restored and at == "best":
            with as_written(folder / "best"):
                run.saves.restore_best()
    finally:
        run.close()
    if not restored:
        raise ValueError(f"{folder} holds no checkpoint")
    return run


def load_trained(folder: Path, task: Task) -> tuple[Any, eqx.nn.State]:
    """The model that the run in `folder` has trained on `task`, and its BatchNorm state."""
    run = restored_run(folder, task)
    return run.model, run.state.norm_state
