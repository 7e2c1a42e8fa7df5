"""The figures of a page about several runs: every run a line in each."""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .figures import STYLE, Plate, as_svg, thin
from .history import History

POINTS = 600
"""Points of a curve, at most."""

Points = tuple[list[Any], list[Any]]
"""Numbers along both axes."""


def comparison_plates(runs: Mapping[str, History]) -> list[Plate]:
    """Every figure for which a run holds data."""
    makers = (_measures, _states_and_speed)
    with matplotlib.rc_context(STYLE):
        return [plate for maker in makers if (plate := maker(runs)) is not None]


def _measures(runs: Mapping[str, History]) -> Plate | None:
    """The measure that counts on the validation split, by steps and by wall time."""
    measure = next(iter(runs.values())).objective.measure

    def seen(by: str) -> Callable[[History], Points]:
        def points(history: History) -> Points:
            evals = [e for e in history.named("eval") if e["split"] == "validation"]
            known = [e for e in evals if e.get(measure.key) is not None and e.get(by) is not None]
            return [e[by] for e in known], [e[measure.key] for e in known]

        return points

    if not any(seen("step")(history)[0] for history in runs.values()):
        return None
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    by_step, by_time = figure.subplots(1, 2)
    _lines(by_step, runs, seen("step"))
    _lines(by_time, runs, seen("seconds"))
    by_step.set_xlabel("step")
    by_time.set_xlabel("wall time [s]")
    for axes in (by_step, by_time):
        axes.set_title(f"validation {measure.label}")
        if measure.is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    _legend(figure, by_step)
    caption = f"The {measure.label} on the validation split, over the steps and over the wall time."
    return Plate(f"{measure.label[:1].upper()}{measure.label[1:]}", as_svg(figure, "both"), caption)


def _states_and_speed(runs: Mapping[str, History]) -> Plate | None:
    """States of all layers together, and steps per second."""

    def states(history: History) -> Points:
        changes = [(float(step), float(sum(sizes))) for step, sizes in history.size_changes]
        if changes:
            changes.append((float(history.last_step), changes[-1][1]))
        return [step for step, _ in changes], [size for _, size in changes]

    def speed(history: History) -> Points:
        known = [e for e in history.named("train") if e.get("steps_per_second")]
        return [e["step"] for e in known], [e["steps_per_second"] for e in known]

    if not any(states(history)[0] for history in runs.values()):
        return None
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, runs, states, in_steps=True)
    _lines(right, runs, speed)
    left.set_title("states of all layers")
    right.set_title("steps per second")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
    _legend(figure, left)
    caption = "States of all layers together, and training steps per second, over the steps."
    return Plate("States and speed", as_svg(figure, "sizes"), caption)


def _lines(
    axes: Axes,
    runs: Mapping[str, History],
    points: Callable[[History], Points],
    *,
    in_steps: bool = False,
) -> None:
    colours = matplotlib.colormaps["tab10"].colors  # pyright: ignore[reportAttributeAccessIssue]
    for k, (name, history) in enumerate(runs.items()):
        x, y = (np.asarray(each, float) for each in points(history))
        dash = ("-", "--", ":")[k // len(colours) % 3]
        x, y = (x, y) if in_steps else thin(x, y, POINTS)
        style = "steps-post" if in_steps else "default"
        axes.plot(x, y, dash, color=colours[k % len(colours)], label=name, drawstyle=style)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
