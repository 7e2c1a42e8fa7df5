"""Models that earlier runs have trained, out of their run directories."""

from pathlib import Path
from typing import Any

import equinox as eqx

from data.task import Task

from ..run.clock import Clock
from ..run.loop import Run
from ..settings.cli import parse_command
from ..settings.config import RunConfig
from ..settings.errors import UsageError


def check_run(folder: Path) -> None:
    """`UsageError` unless `folder` is a finished run."""
    for name in ("config.yaml", "summary.json", "checkpoints"):
        if not (folder / name).exists():
            raise UsageError(f"{folder} is no finished run: {folder / name} is missing")


def check_trained(config: RunConfig[Any, Any]) -> None:
    """`UsageError` unless the teacher, if there is one, has finished a run on the same data."""
    folder = config.distillation.teacher
    if folder is None:
        return
    check_run(folder)
    found = parse_command(["--resume", str(folder)]).config
    if found.task != config.task:
        raise UsageError(f"{folder} is a run on {found.task}, allowed: one on {config.task}")
    for name, wanted in vars(config.data).items():
        has = getattr(found.data, name)
        if has != wanted and name != "workers":  # else it may have learned what is tested here
            raise UsageError(f"{folder} is a run with data.{name}={has}, allowed: {wanted}")


def load_run(folder: Path, task: Task) -> Run:
    """The run in `folder` at its last checkpoint. ValueError if it has none."""
    config = parse_command(["--resume", str(folder)]).config
    run = Run(config, task, folder, Clock())
    try:
        restored = run.saves.restore()
    finally:
        run.close()
    if not restored:
        raise ValueError(f"{folder} holds no checkpoint")
    return run


def load_trained(folder: Path, task: Task) -> tuple[Any, eqx.nn.State]:
    """The model that the run in `folder` has trained on `task`, and its BatchNorm state."""
    run = load_run(folder, task)
    return run.model, run.state.norm_state
