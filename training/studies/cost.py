"""An estimate of what a study costs, from two dispatches of each of its programs."""

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
    """Seconds that the runs which are not finished will take, `slots` at a time: from, to.

    The first if each goes as fast beside others as alone, the second if they share what one has
    alone. Steps at the initial state count in full; what compression saves, and what evaluations
    cost, is not known beforehand and is left out. A run that is cut from another takes no steps.
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
