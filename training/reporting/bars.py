"""Progress of long work: a bar for each part on a terminal, occasional lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console

from data.task import Progress

from .words import format_seconds

EVERY = 10.0
"""Seconds between two lines about one part."""


@contextmanager
def progress_bars(
    console: Console, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Progress]:
    """Inside this context, `progress(done, total, what)` shows the progress of `what` and the time
    left."""
    if not console.is_terminal:
        yield _lines(console, clock)
        return
    columns = rich.progress.Progress.get_default_columns()
    with rich.progress.Progress(*columns, console=console) as bars:
        known: dict[str, rich.progress.TaskID] = {}

        def progress(done: int, total: int, what: str) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield progress


def _lines(console: Console, clock: Callable[[], float]) -> Progress:
    begun: dict[str, tuple[float, int]] = {}
    told: dict[str, float] = {}

    def progress(done: int, total: int, what: str) -> None:
        now = clock()
        first, before = begun.setdefault(what, (now, done))
        if what in told and done < total and now - told[what] < EVERY:
            return
        told[what] = now
        left = ""
        if before < done < total:
            left = f", {format_seconds((now - first) / (done - before) * (total - done))} left"
        console.print(f"{what}: {done} of {total}{left}", highlight=False, soft_wrap=True)

    return progress
