"""Reduction after training: a finished run's model is cut and measured, as a new run."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import equinox as eqx

from compress import AbstractPolicy, Ranks, compress
from data.task import Task

from ..finished.kept_task import keep_task
from ..model.network import check_model, layer_sizes
from ..reporting.environment import describe_environment
from ..reporting.events import EventLog, write_atomically, write_json
from ..run.clock import Clock
from ..run.describe import describe
from ..run.loop import Run
from ..run.session import Session
from ..settings.config import CompressionConfig, RunConfig
from ..settings.errors import check_new
from ..settings.methods import budget_policy
from ..settings.yaml import write_yaml
from ..shrinking.reduction import Reduction, calibration_split
from .data import note_data
from .trained import restored_run


def cut_run(
    folder: Path,
    task: Task,
    out: Path,
    compression: CompressionConfig,
    *,
    refit: bool = False,
    at: Literal["best", "last"] = "best",
) -> dict[str, Any]:
    """Cut the model that the run in `folder` has trained on `task`. Returns the summary, which
    `out` holds too.

    Every layer is cut to `compression.rank` states by `compression.method`, or in mode `budget` all
    of them to so many on average; nothing is trained afterwards. `out` becomes the directory of a
    finished run: its checkpoint is the cut model, its log has the shrink and the losses around it,
    its configuration is the trained run's, which is kept in `trained.yaml`, but for `compression`.
    `at` is that of `restored_run`. ValueError if the model has fewer states, or `out` holds files,
    and for a method that the layers do not have.
    """
    check_new("out", out)
    clock = Clock()
    trained = restored_run(folder, task, at)
    _check(compression, min(layer_sizes(trained.model)), folder, refit)
    loop = replace(trained.config.loop, keep_systems=False)  # both spectra are of one step
    config = replace(trained.config, compression=compression, loop=loop)
    check_model(config, task)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "environment.json", describe_environment())
    keep_task(out, task)
    note_data(out, config, task)
    log = EventLog(out / "metrics.jsonl", append=False)
    run = _taken_over(trained, config, task, out, clock)
    session = run.session
    session.reporter.sinks = [log]
    try:
        session.emit("start", **describe(config, task, session.beginning))
        run.report_spectra()
        _cut(session, refit)
        run.report_spectra()
        for split in ("validation", "test"):
            session.evaluate(split)
        run.saves.save()
        session.emit("end")
        summary = {**session.summary(), "cut": {"run": str(folder), "refit": refit}}
    finally:
        run.close()
        log.close()
    # after the checkpoint: a folder with a configuration alone would be trained by --resume
    write_atomically(out / "trained.yaml", write_yaml(trained.config))
    said = f"# {folder} after its training (trained.yaml), cut once\n"
    write_atomically(out / "config.yaml", said + write_yaml(run.config))
    write_json(out / "summary.json", summary)
    return summary


def _check(compression: CompressionConfig, fewest: int, folder: Path, refit: bool) -> None:
    if compression.rank is None or compression.rank > fewest:
        raise ValueError(
            f"`compression.rank` must be 1 to {fewest}, the fewest states of a layer in {folder}, "
            f"got {compression.rank}"
        )
    if refit and compression.method != "data":
        raise ValueError(
            f"`refit` must be False with method {compression.method}, which does not look at data, "
            "got True"
        )


def _taken_over(
    trained: Run, config: RunConfig[Any, Any], task: Task, out: Path, clock: Clock
) -> Run:
    """A run in `out` at the end of `trained`, to be cut as `config` says."""
    run, before = Run(config, task, out, clock), trained.session
    run.session.held.hold(before.state)
    run.session.step, run.session.phases = before.step, before.phases
    return run


def _policy(compression: CompressionConfig, sizes: list[int]) -> AbstractPolicy:
    rank = compression.rank or 1
    if compression.mode == "budget":
        return budget_policy(compression, rank * len(sizes))
    return Ranks(rank)


def _cut(session: Session, refit: bool) -> None:
    """Cut the model of `session` and report it."""
    config, clock = session.config, session.clock
    calibration = calibration_split(config, session.task.splits["train"])
    reduction = Reduction(config, calibration)
    started = time.perf_counter()
    with clock.phase("shrink"):
        loss_before = session.measure(calibration).means()[0]
        start = time.perf_counter()
        planned = reduction.plan(
            session.model,
            session.state.norm_state,
            _policy(config.compression, session.sizes),
            refit=True if refit else None,  # as in training: selective layers are fitted anyway
        )
        plan_seconds = time.perf_counter() - start
        start = time.perf_counter()
        after, _ = compress(session.model, None, plan=planned)
        params = eqx.filter(after, eqx.is_array)
        opt_state = session.optimizer.init(eqx.filter(params, eqx.is_inexact_array))
        session.held.hold(session.state._replace(params=params, opt_state=opt_state))
        compress_seconds = time.perf_counter() - start
        loss_after = session.measure(calibration).means()[0]
        layers = reduction.describe(planned, after, layer_sizes(after))
    session.emit(
        "shrink",
        layers=layers,
        loss_before=loss_before,
        loss_after=loss_after,
        rejected=None,
        plan_seconds=plan_seconds,
        compress_seconds=compress_seconds,
        duration=time.perf_counter() - started,
    )
