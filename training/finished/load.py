"""Trained models from run directories, and from folders that they were saved to."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax

from data.task import Task

from ..model.network import build_model
from ..run.checkpoint import Checkpoints, resized, shapes_of
from ..run.step import TrainState
from ..settings.config import RunConfig
from ..settings.errors import UsageError, as_written
from ..settings.saved import complete, read_config
from .folder import ABOUT, read_about, read_arrays
from .kept_task import blank_task, describe_task, read_kept_task
from .trained import TrainedRun

Arrays = Callable[[Any, eqx.nn.State], tuple[Any, eqx.nn.State]]
"""From the shapes of a model's arrays and of its state to the arrays."""


def load_run(
    folder: Path | str, *, task: Task | None = None, at: Literal["best", "last"] = "best"
) -> TrainedRun:
    """The model that the finished run in `folder` has trained, or that `TrainedRun.save` wrote.

    It is the model of the best validation step after the last cut, or with `at="last"` that of the
    last step, as for runs without a best state (`loop.keep_best`). No data is needed. `task` is for
    runs of versions without `task.json`. `UsageError`, a ValueError, if `folder` holds no finished
    run.
    """
    folder = Path(folder)
    if (folder / ABOUT).exists():
        return _saved(folder)
    return _finished(folder, task, at)


def check_run(folder: Path) -> None:
    """`UsageError` unless `folder` is a finished run."""
    for name in ("config.yaml", "summary.json", "checkpoints"):
        if not (folder / name).exists():
            raise UsageError(f"{folder} is not a finished run: {folder / name} is missing")


def trained_run(
    config: RunConfig[Any, Any],
    task: Task,
    model: Any,
    state: eqx.nn.State,
    summary: Mapping[str, Any],
    folder: Path | None = None,
) -> TrainedRun:
    """The `TrainedRun` of a run that has trained `model` on `task`, with or without data."""
    counts = {name: len(split) for name, split in task.splits.items()}
    batch = _evaluation_batch(config, counts)
    return TrainedRun(config, task, model, state, summary, batch, folder)


def _finished(folder: Path, task: Task | None, at: Literal["best", "last"]) -> TrainedRun:
    check_run(folder)
    config = read_config(folder, needs_data=False)
    kept = read_kept_task(folder) if task is None else describe_task(task)
    summary = _summary(folder / "summary.json")
    best = at == "best" and "best" in summary and (folder / "best").is_dir()
    place = folder / ("best" if best else "checkpoints")
    checkpoints = Checkpoints(place)
    try:
        with as_written(place):
            step = checkpoints.latest()
        if step is None:
            raise UsageError(f"{place} must hold a checkpoint, got none")

        def arrays(params: Any, state: eqx.nn.State) -> tuple[Any, eqx.nn.State]:
            got = checkpoints.part(step, TrainState(params, state, (), None))  # pyright: ignore
            return got.params, got.norm_state

        with as_written(folder / "task.json"):
            blank, batch = blank_task(kept), _evaluation_batch(config, kept["sequences"])
        with as_written(place / str(step)):
            model, state = _with_arrays(config, blank, checkpoints.metadata(step), arrays)
    finally:
        checkpoints.close()
    return TrainedRun(config, blank, model, state, summary, batch, folder)


def _summary(file: Path) -> dict[str, Any]:
    """The summary of a finished run."""
    with as_written(file):
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
        return found


def _saved(folder: Path) -> TrainedRun:
    about, file = read_about(folder), folder / ABOUT
    with as_written(file, "as TrainedRun.save has written it"):
        config = complete(about["config"], file, needs_data=False)
        task, batch, summary = blank_task(about["task"]), int(about["batch"]), about["summary"]

    def arrays(params: Any, state: eqx.nn.State) -> tuple[Any, eqx.nn.State]:
        got = read_arrays(folder, {"model": params, "state": state})
        return got["model"], got["state"]

    with as_written(folder, "as TrainedRun.save has written it"):
        model, state = _with_arrays(config, task, about, arrays)
    return TrainedRun(config, task, model, state, summary, batch, folder)


def _with_arrays(
    config: RunConfig[Any, Any], task: Task, saved: Mapping[str, Any], arrays: Arrays
) -> tuple[Any, eqx.nn.State]:
    """The model of `config` with layers of the saved sizes, and its state, with these arrays."""
    start, state = eqx.filter_eval_shape(build_model, config, task)
    sizes, maps = saved["d_state"], saved.get("maps")
    model = resized(start, sizes, maps)
    _, static = eqx.partition(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    params, state = arrays(shapes_of(start, sizes, maps), state)
    return eqx.combine(params, static), state


def _evaluation_batch(config: RunConfig[Any, Any], counts: Mapping[str, int]) -> int:
    """Sequences that the run itself evaluates at once, on one device."""
    return min(config.loop.evaluation_batch, counts["validation"], counts["test"])
