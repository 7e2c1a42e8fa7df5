"""An estimate of a study's run time, from two dispatches of each of its programs."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.task import Task

from ..run.clock import Clock
from ..run.interrupt import Interrupt
from ..run.loop import Run
from ..settings.config import RunConfig
from .study import Planned


def seconds_per_step(config: RunConfig[Any, Any], task: Task) -> float:
    """Seconds of a training step of `config` at its initial state, on this whole machine.

    A dispatch to warm up, and one that is timed.
    """
    steps = config.loop.steps_per_dispatch
    with tempfile.TemporaryDirectory() as place:
        clock = Clock()
        run = Run(config, task, Path(place), clock)
        try:
            interrupt = Interrupt()
            run.train_to(steps, interrupt)
            before = clock.read()["train"]
            run.train_to(2 * steps, interrupt)
            return (clock.read()["train"] - before) / steps
        finally:
            run.close()


def estimate(
    planned: Sequence[Planned], finished: Mapping[str, Any], task: Task, slots: int
) -> tuple[float, float]:
    """Lower and upper estimate of the seconds of all unfinished runs, `slots` at a time: if
    parallel runs are as fast as single ones, and if they share the speed of one. All steps count at
    the initial state. Savings by compression and the cost of evaluations are unknown and left out.
    A run that is cut from another takes no steps.
    """
    times: dict[Any, float] = {}
    total = 0.0
    for run in planned:
        if run.name in finished or run.variant.cut_from is not None:
            continue
        config = run.config
        key = config.layer, config.network, config.batch_size, config.regularization
        if key not in times:
            times[key] = seconds_per_step(config, task)
        total += times[key] * config.steps
    return total / slots, total
