"""The display of a run while it trains: a live panel in a terminal, plain lines elsewhere.

Both displays are sinks for the events of `training.reporting.events` and context managers, which
restore the terminal in all cases.
"""

from types import TracebackType

from rich.console import Console

from .events import Event, objective_of
from .lines import line_about, verdict
from .panel import LiveDisplay
from .time_left import TimeLeft
from .words import format_seconds


class PlainDisplay:
    """One readable line for each event; spectra are left out. For files, pipes and CI logs."""

    def __init__(self, console: Console):
        self._console = console
        self._total: int | None = None
        self._objective = objective_of({})
        self._left = TimeLeft()
        self._test: Event = {}
        self._before: list[int] = []
        self._after: list[int] = []

    def write(self, event: Event) -> None:
        """Writes a line about `event`."""
        if event["event"] == "start":
            self._total, self._objective = event["total_steps"], objective_of(event)
            self._before = [layer["d_state"] for layer in event["layers"]]
        if event["event"] == "eval" and event["split"] == "test":
            self._test = event
        if "d_state" in event and isinstance(event["d_state"], list):
            self._after = event["d_state"]
        self._left.write(event)
        line = line_about(event, self._total, self._objective)
        if line is None:
            return
        left = self._left.seconds(self._total)
        if event["event"] == "train" and left is not None:
            line += f"  {format_seconds(left)} left"
        if event["event"] == "end":
            before, after = self._before, self._after or self._before
            said = verdict("finished", self._test, before, after, self._objective)
            line = line.removesuffix("finished") + said
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def rewind(self, step: int) -> None:
        """Restarts the estimate of the time left at this step. Printed lines stay."""
        self._left.rewind(step)

    def close(self) -> None:
        """Does nothing: all lines are already printed."""

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def make_display(console: Console | None = None) -> LiveDisplay | PlainDisplay:
    """The display for `console` (default: standard output).

    A `LiveDisplay` on a terminal that can move its cursor, a `PlainDisplay` elsewhere.
    """
    if console is None:
        console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(console)
