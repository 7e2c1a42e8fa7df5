"""What a run shows while it trains: a live panel in a terminal, plain lines anywhere else.

Both displays are sinks for the events of `training.reporting.events` and context managers, which
give the terminal back whatever happens. `write` only notes what an event says; the live panel is
drawn a few times a second by a thread of its own, so training never waits for the terminal.
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

_SMOOTHING = 0.3  # weight of the newest step rate in the running mean
_SILENCE = 5.0  # seconds without a step after which the panel says so
_ROWS = 8  # layers in one column of the panel
_MOST_LAYERS = 24
_MOST_NAMED = 4  # layers that a line of text names one by one


def format_seconds(seconds: float | int) -> str:
    """A duration for people: 0.4 s, 12 s, 3:05, 1:02:03."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float | int | None, spec: str) -> str:
    return "not finite" if value is None or not math.isfinite(value) else format(value, spec)


def _measured(event: Event, objective: Objective) -> list[str]:
    """Every measure in an event, with its name."""
    return [f"{m.label} {m.show(event[m.key])}" for m in objective.measures]


def _count(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _rate(value: float | int) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _sizes(sizes: list[int]) -> str:
    """The states of the layers, in a few words however many there are."""
    if len(sizes) > 1 and len(set(sizes)) == 1:
        return f"{len(sizes)} x {sizes[0]}"
    if len(sizes) > _MOST_NAMED:
        return f"{sum(sizes)} in {len(sizes)} layers"
    return "+".join(map(str, sizes))


class TimeLeft:
    """Estimates the seconds that a run still needs.

    The rate is a running mean of the steps per second since the last change of the program: a
    shrink or a recompilation makes earlier rates meaningless, so the mean starts afresh with the
    next one.
    The evaluations to come count at the price of the last one.
    """

    def __init__(self):
        self._rate: float | None = None
        self._stale = True
        self._step = 0
        self._evaluation_step: int | None = None
        self._evaluation_share = 0.0  # seconds of evaluation for each step

    def write(self, event: Event) -> None:
        """Takes one event."""
        match event["event"]:
            case "start":
                # No evaluation can come before this step, so that the first one has a distance too.
                self._evaluation_step = event["step"]
            case "resume":
                self._evaluation_step = event["step"]
                self._stale = True
            case "compile" if event.get("what") != "eval step":
                self._stale = True
            case "shrink" if any(row["before"] != row["after"] for row in event["layers"]):
                self._stale = True
            case "eval" if event["split"] == "validation":
                start, step = self._evaluation_step, event["step"]
                if start is not None and step > start and event.get("duration") is not None:
                    self._evaluation_share = event["duration"] / (step - start)
                self._evaluation_step = step
            case "train":
                rate = event.get("steps_per_second")
                if rate:  # not null, not zero
                    old = self._rate
                    if self._stale or old is None:
                        self._rate = float(rate)
                    else:  # the mean of the times, not of the rates: times are what adds up
                        self._rate = 1 / ((1 - _SMOOTHING) / old + _SMOOTHING / rate)
                    self._stale = False
        self._step = max(self._step, event["step"])

    def rewind(self, step: int) -> None:
        """The run has gone back to this step."""
        self._step, self._evaluation_step, self._stale = step, step, True

    @property
    def steps_per_second(self) -> float | None:
        """The present rate; None before the first one is known."""
        return self._rate

    def seconds(self, total_steps: int | None) -> float | None:
        """Seconds from the last event to the end of the run; None while nothing is known."""
        if total_steps is None or self._rate is None:
            return None
        return max(0, total_steps - self._step) * (1 / self._rate + self._evaluation_share)


def _describe(event: Event, total: int | None, objective: Objective) -> str | None:
    """One line about `event`, or None where there is nothing to say to a person."""
    step = event["step"]
    at = f"step {step}" + (f"/{total}" if total is not None else "")
    match event["event"]:
        case "start":
            sizes = _sizes([layer["d_state"] for layer in event["layers"]])
            baselines = ", ".join(
                f"{name} {objective.measure.show(value)}"
                for name, value in event.get("baselines", {}).items()
            )
            return (
                f"{event['model']} on {event['task']}, seed {event['seed']}: "
                f"{_count(event['parameters'])} parameters, state {sizes}, "
                f"{event['total_steps']} steps"
                + (f"; without a model: {baselines}" * bool(baselines))
            )
        case "train":
            return (
                f"{at}  loss {_number(event['loss'], '.4f')}  "
                f"{'  '.join(_measured(event, objective))}  "
                f"lr {_number(event['learning_rate'], '.2e')}  "
                f"lr ssm {_number(event['learning_rate_ssm'], '.2e')}  "
                f"state {_sizes(event['d_state'])}  "
                f"{_rate(event['steps_per_second'] or 0)} steps/s"
            )
        case "eval":
            return (
                f"{at}  {event['split']} loss {_number(event['loss'], '.4f')}  "
                f"{'  '.join(_measured(event, objective))}  ({format_seconds(event['duration'])})"
            )
        case "shrink":
            cut = [row for row in event["layers"] if row["after"] != row["before"]]
            if event.get("rejected"):
                return (
                    f"{at}  shrink to {_sizes(event['rejected'])} dropped: loss "
                    f"{_number(event['loss_before'], '.4f')} → "
                    f"{_number(event['loss_after'], '.4f')}"
                )
            if not cut:
                return f"{at}  shrink: nothing to cut"
            sizes = ", ".join(f"{row['path']} {row['before']} → {row['after']}" for row in cut)
            if len(cut) > _MOST_NAMED:
                before, after = (sum(row[key] for row in cut) for key in ("before", "after"))
                sizes = f"{before} → {after} states in {len(cut)} of {len(event['layers'])} layers"
            return (
                f"{at}  shrink: {sizes}; loss {_number(event['loss_before'], '.4f')} → "
                f"{_number(event['loss_after'], '.4f')}  "
                f"({format_seconds(event['plan_seconds'] + event['compress_seconds'])})"
            )
        case "rollback":
            return (
                f"{at}  rolled back from step {event['from_step']}: state {_sizes(event['tried'])} "
                f"did not hold, on with {_sizes(event['d_state'])}"
            )
        case "compile":
            meanwhile = ", in the background" if event.get("background") else ""
            took = format_seconds(event["seconds"])
            return f"{at}  compiled the {event['what']} in {took}{meanwhile}"
        case "rehearsal" if event["error"] is not None:
            return f"{at}  the shrink could not be rehearsed: {event['error']}"
        case "takeover":
            failed = "" if event["error"] is None else f" (in the background: {event['error']})"
            return f"{at}  on in programs for state {_sizes(event['d_state'])}{failed}"
        case "checkpoint":
            return f"{at}  checkpoint saved"
        case "resume":
            return f"{at}  resumed"
        case "interrupt":
            return f"{at}  interrupted"
        case "end":
            return f"{at}  finished"
    return None


class PlainDisplay:
    """One readable line for each event; spectra are left out. For files, pipes and CI logs."""

    def __init__(self, console: Console):
        self._console = console
        self._total: int | None = None
        self._objective = objective_of({})
        self._left = TimeLeft()

    def write(self, event: Event) -> None:
        """Writes a line about `event`."""
        if event["event"] == "start":
            self._total, self._objective = event["total_steps"], objective_of(event)
        self._left.write(event)
        line = _describe(event, self._total, self._objective)
        if line is None:
            return
        left = self._left.seconds(self._total)
        if event["event"] == "train" and left is not None:
            line += f"  {format_seconds(left)} left"
        self._console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def rewind(self, step: int) -> None:
        """The time that is left is told from this step on; lines that are out stay."""
        self._left.rewind(step)

    def close(self) -> None:
        """Does nothing: every line is already out."""

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class _Shown:
    """What the panel shows: the newest of everything."""

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
    closing: str | None = None


class LiveDisplay:
    """A panel that stays at the bottom of the terminal; evaluations and shrinks scroll by above."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self._console = console
        self._clock = clock
        self._began = self._stepped = self._wrote = clock()
        self._shown = _Shown()
        self._gap = 0.0  # seconds between the last two reports of steps
        self._left = TimeLeft()
        self._lock = threading.Lock()
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=4, transient=False
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
        """Draws the panel a last time and gives the terminal back."""
        if self._open:
            self._open = False
            self._live.stop()

    def write(self, event: Event) -> None:
        """Notes `event`; the panel shows it when it is drawn next."""
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
        line = _describe(event, self._shown.total, self._shown.objective)
        return None if style is None or line is None else Text(line, style=style)

    def render(self) -> RenderableType:
        """The panel as it is now."""
        with self._lock:
            parts: list[RenderableType] = [self._progress(), self._numbers()]
            if self._shown.sizes:
                parts += [Text(), self._layers()]
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
        of = f" / {_count(total)}" if total is not None else ""
        row.add_row(
            Text(f"step {_count(shown.step)}{of}"),
            ProgressBar(total=float(total or 1), completed=float(shown.step)),
            Text(share),
        )
        left = self._left.seconds(total)
        rate = self._left.steps_per_second
        silence = now - self._stepped
        clock = Text(f"{format_seconds(now - self._began)} elapsed", style="dim")
        if rate is not None:
            clock = Text.assemble((f"{_rate(rate)} steps/s", "green"), "   ", clock)
        if shown.closing is not None:
            clock.append(f"   {shown.closing}", style="bold")
        else:
            if left is not None:
                clock.append(f"   {format_seconds(max(0.0, left - (now - self._wrote)))} left")
            if silence > max(_SILENCE, 3 * self._gap):
                clock.append(
                    f"   no step for {format_seconds(silence)}: compiling, evaluating or waiting",
                    style="yellow",
                )
        return Group(row, clock)

    def _numbers(self) -> RenderableType:
        shown = self._shown
        table = Table.grid(padding=(0, 2))
        train, validation, measure = shown.train, shown.validation, shown.objective.measure
        if train:
            table.add_row(
                Text("train", style="dim"),
                f"loss {_number(train['loss'], '.4f')}",
                *_measured(train, shown.objective),
                f"learning rate {_number(train['learning_rate'], '.2e')}",
                f"ssm {_number(train['learning_rate_ssm'], '.2e')}",
            )
        if validation:
            table.add_row(
                Text("validation", style="dim"),
                f"loss {_number(validation['loss'], '.4f')}",
                *_measured(validation, shown.objective),
                f"at step {validation['step']}",
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


def make_display(console: Console | None = None) -> LiveDisplay | PlainDisplay:
    """The display that suits `console` (default: standard output).

    A `LiveDisplay` on a terminal that can move its cursor, a `PlainDisplay` elsewhere.
    """
    if console is None:
        console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(console)
