"""The panel at the bottom of a terminal with the progress of a run. `write` only stores the event.
A thread draws the panel a few times a second, so training never waits for the terminal.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..model.objective import Objective
from .events import Event, objective_of
from .lines import line_about, verdict
from .time_left import TimeLeft
from .words import format_count, format_number, format_rate, format_seconds

_SILENCE = 5.0  # seconds without a step after which the panel says so
_ROWS = 8  # layers in one column of the panel
_MOST_LAYERS = 24


@dataclass
class _Shown:
    """The content of the panel: the latest values."""

    title: str = "training"
    step: int = 0
    total: int | None = None
    objective: Objective = field(default_factory=lambda: objective_of({}))
    train: Event = field(default_factory=dict[str, Any])
    validation: Event = field(default_factory=dict[str, Any])
    best: Event = field(default_factory=dict[str, Any])
    paths: list[str] = field(default_factory=list[str])
    initial: list[int] = field(default_factory=list[int])
    sizes: list[int] = field(default_factory=list[int])
    test: Event = field(default_factory=dict[str, Any])
    closing: str | None = None


class LiveDisplay:
    """A panel that stays at the bottom of the terminal, with evaluations and shrinks above it."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self._console = console
        self._clock = clock
        self._began = self._stepped = self._wrote = clock()
        self._shown = _Shown()
        self._gap = 0.0  # seconds between the last two reports of steps
        self._left = TimeLeft()
        self._lock = threading.Lock()
        self._width = console.width
        self._live = Live(
            console=console, get_renderable=self._redraw, refresh_per_second=4, transient=False
        )
        self._open = True

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Draws the panel a last time and restores the terminal."""
        if self._open:
            self._open = False
            self._live.stop()

    def write(self, event: Event) -> None:
        """Stores `event`, which the panel shows at its next drawing."""
        with self._lock:
            self._note(event)
        line = self._scrolling(event)
        if line is not None:
            self._console.print(line)

    def rewind(self, step: int) -> None:
        """Shows the run at this step again."""
        with self._lock:
            self._shown.step = step
            self._left.rewind(step)

    def _note(self, event: Event) -> None:
        shown, now = self._shown, self._clock()
        self._left.write(event)
        self._wrote = now
        if event["event"] == "train":
            self._gap, self._stepped = now - self._stepped, now
        shown.step = max(shown.step, event["step"])
        match event["event"]:
            case "start":
                shown.title = f"{event['model']} on {event['task']}, seed {event['seed']}"
                shown.total, shown.objective = event["total_steps"], objective_of(event)
                shown.paths = [layer["path"] for layer in event["layers"]]
                shown.initial = [layer["d_state"] for layer in event["layers"]]
                shown.sizes = list(shown.initial)
            case "train":
                shown.train = event
                self._resize(list(event["d_state"]))
            case "eval" if event["split"] == "validation":
                shown.validation = event
                measure = shown.objective.measure
                if measure.better(event[measure.key], shown.best.get(measure.key)):
                    shown.best = event
            case "eval":
                shown.test = event
            case "shrink":
                after = {row["path"]: row["after"] for row in event["layers"]}
                pairs = zip(shown.paths, shown.sizes, strict=True)
                self._resize([after.get(path, size) for path, size in pairs])
            case "rollback":
                self._resize(list(event["d_state"]))
            case "end":
                shown.closing = "finished"
            case "interrupt":
                shown.closing = "interrupted"

    def _resize(self, sizes: list[int]) -> None:
        shown = self._shown
        shown.sizes = sizes
        for i in range(len(shown.paths), len(sizes)):  # a run whose "start" was not seen
            shown.paths.append(f"layer {i}")
            shown.initial.append(sizes[i])

    def _scrolling(self, event: Event) -> Text | None:
        styles = {
            "eval": "",
            "shrink": "bold cyan",
            "rollback": "bold yellow",
            "compile": "dim",
            "resume": "yellow",
            "interrupt": "yellow",
        }
        style = styles.get(event["event"])
        line = line_about(event, self._shown.total, self._shown.objective)
        return None if style is None or line is None else Text(line, style=style)

    def _redraw(self) -> RenderableType:
        """The panel for the terminal, which is cleared where its width has changed.

        A terminal that became narrower has broken the lines of the last panel in two, and the
        cursor would go up too few of them.
        """
        if self._console.width != self._width:
            self._width = self._console.width
            self._console.clear()
            self._live._live_render._shape = None
        return self.render()

    def render(self) -> RenderableType:
        """The panel as it is now."""
        with self._lock:
            parts: list[RenderableType] = [self._progress(), self._numbers()]
            if self._shown.sizes:
                parts += [Text(), self._layers()]
            if self._shown.closing is not None:
                parts += [Text(), Text(self._verdict(), style="bold", overflow="ellipsis")]
            return Panel(
                Group(*parts), title=Text(self._shown.title, style="bold"), title_align="left"
            )

    def _progress(self) -> RenderableType:
        shown, now = self._shown, self._clock()
        total = shown.total
        share = f"{100 * shown.step / total:.0f} %" if total else ""
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True, justify="right")
        of = f" / {format_count(total)}" if total is not None else ""
        row.add_row(
            Text(f"step {format_count(shown.step)}{of}"),
            ProgressBar(total=float(total or 1), completed=float(shown.step)),
            Text(share),
        )
        left = self._left.seconds(total)
        rate = self._left.steps_per_second
        silence = now - self._stepped
        clock = Text(f"{format_seconds(now - self._began)} elapsed", style="dim")
        clock.no_wrap, clock.overflow = True, "ellipsis"
        if rate is not None:
            clock.append(f"   {format_rate(rate)} steps/s", style="green")
        if shown.closing is None:
            if left is not None:
                clock.append(f"   {format_seconds(max(0.0, left - (now - self._wrote)))} left")
            if silence > max(_SILENCE, 3 * self._gap):
                clock.append(f"   no step for {format_seconds(silence)}", style="yellow")
        return Group(row, clock)

    def _verdict(self) -> str:
        """The result of the run in one line."""
        shown = self._shown
        return verdict(shown.closing or "", shown.test, shown.initial, shown.sizes, shown.objective)

    def _numbers(self) -> RenderableType:
        shown = self._shown
        table = Table.grid(padding=(0, 2))
        for _ in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis")
        train, validation, measure = shown.train, shown.validation, shown.objective.measure
        if train:
            table.add_row(
                Text("train", style="dim"),
                f"loss {format_number(train['loss'], '.4f')}",
                f"{measure.label} {measure.show(train.get(measure.key))}",
                f"rate {format_number(train['learning_rate'], '.1e')}",
                f"ssm {format_number(train['learning_rate_ssm'], '.1e')}",
            )
        if validation:
            table.add_row(
                Text("validation", style="dim"),
                f"loss {format_number(validation['loss'], '.4f')}",
                f"{measure.label} {measure.show(validation.get(measure.key))}",
                f"step {validation['step']}",
                f"best {measure.show(shown.best.get(measure.key))}",
            )
        if not train and not validation:
            table.add_row(Text("waiting for the first steps", style="dim"))
        return table

    def _layers(self) -> RenderableType:
        shown = self._shown
        rows = list(zip(shown.paths, shown.initial, shown.sizes, strict=True))
        visible, hidden = rows[:_MOST_LAYERS], rows[_MOST_LAYERS:]
        labels = max(len(path) for path, _, _ in visible)
        numbers = max(len(_change(initial, size)) for _, initial, size in visible)
        inside = self._console.width - 4  # the panel's border and padding
        columns = 2 if len(rows) > _ROWS and inside // 2 - labels - numbers - 6 >= 8 else 1
        width = max(4, min(32, inside // columns - labels - numbers - 6))
        height = math.ceil(len(visible) / columns)
        largest = max([*shown.initial, *shown.sizes, 1])
        grid = Table.grid(padding=(0, 4, 0, 0))
        blocks = []
        for i in range(0, len(visible), height):
            block = Table.grid(padding=(0, 1))
            block.add_column(no_wrap=True, style="dim")
            block.add_column(no_wrap=True, justify="right")
            block.add_column(no_wrap=True, width=width)
            for path, initial, size in visible[i : i + height]:
                block.add_row(
                    Text(path), _change(initial, size), _bar(size, initial, largest, width)
                )
            blocks.append(block)
        grid.add_row(*blocks)
        if not hidden:
            return grid
        total, now = sum(row[1] for row in hidden), sum(row[2] for row in hidden)
        rest = f"and {len(hidden)} more layers, together {_change(total, now)}"
        return Group(grid, Text(rest, style="dim"))


def _change(before: int, after: int) -> str:
    return str(after) if after == before else f"{before} → {after}"


def _bar(size: int, initial: int, largest: int, width: int) -> Text:
    """A bar of `size` over a fainter one of `initial`, where `largest` fills `width` characters."""
    now = max(1, round(width * size / largest)) if size else 0
    before = max(now, round(width * initial / largest))
    return Text.assemble(("█" * now, "cyan"), ("░" * (before - now), "dim"))
