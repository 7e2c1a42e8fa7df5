"""Models that earlier runs have trained, out of their run directories."""

from pathlib import Path
from typing import Any

import equinox as eqx

from data.task import Task

from .cli import UsageError, parse_command
from .clock import Clock
from .loop import Run


def check_run(folder: Path) -> None:
    """`UsageError` unless `folder` is a finished run."""
    for name in ("config.yaml", "summary.json"):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} is no finished run: {folder / name} is missing")


def check_trained(folder: Path | None, task: str) -> None:
    """`UsageError` unless `folder` (None passes) is a finished run on the task called `task`."""
    if folder is None:
        return
    check_run(folder)
    found = parse_command(["--resume", str(folder)]).config.task
    if found != task:
        raise UsageError(f"{folder} is a run on {found}, allowed: one on {task}")


def load_run(folder: Path, task: Task) -> Run:
    """The run in `folder` at its last checkpoint. ValueError if it has none."""
    config = parse_command(["--resume", str(folder)]).config
    teacher = config.distillation.teacher
    run = Run(
        config, task, folder, Clock(), None if teacher is None else load_trained(teacher, task)
    )
    try:
        restored = run.restore()
    finally:
        run.close()
    if not restored:
        raise ValueError(f"{folder} holds no checkpoint")
    return run


def load_trained(folder: Path, task: Task) -> tuple[Any, eqx.nn.State]:
    """The model that the run in `folder` has trained on `task`, and its BatchNorm state."""
    run = load_run(folder, task)
    return run.model, run.state.norm_state
