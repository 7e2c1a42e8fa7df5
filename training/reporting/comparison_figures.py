"""The figures of a page about several runs: every run a line in each."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .figures import STEPS
from .history import History
from .plates import DASHES, Axis, Panel, Plate, Series, color, thin

POINTS = 600
"""Points of a curve, at most."""

Points = tuple[list[Any], list[Any]]
"""Numbers along both axes."""


def comparison_plates(runs: Mapping[str, History]) -> dict[str, Plate]:
    """Every figure for which a run holds data, by its name."""
    makers = {"measures": _measures, "states": _states_and_speed}
    found = {name: make(runs) for name, make in makers.items()}
    return {name: plate for name, plate in found.items() if plate is not None}


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
    measured = Axis(measure.label, percent=measure.is_share)
    title = f"validation {measure.label}"
    return Plate(
        f"{measure.label[:1].upper()}{measure.label[1:]}",
        f"The {measure.label} on the validation split, over the steps and over the wall time.",
        [
            Panel(title, Axis(STEPS, low=0), measured, _lines(runs, seen("step"))),
            Panel(title, Axis("wall time [s]", low=0), measured, _lines(runs, seen("seconds"))),
        ],
    )


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
    steps = Axis(STEPS, low=0)
    sizes = _lines(runs, states, in_steps=True)
    return Plate(
        "States and speed",
        "States of all layers together, and training steps per second, over the steps.",
        [
            Panel("states of all layers", steps, Axis("states", low=0), sizes),
            Panel("speed", steps, Axis("steps per second", low=0), _lines(runs, speed)),
        ],
    )


def _lines(
    runs: Mapping[str, History],
    points: Callable[[History], Points],
    *,
    in_steps: bool = False,
) -> list[Series]:
    series = []
    for k, (name, history) in enumerate(runs.items()):
        x, y = (np.asarray(each, float) for each in points(history))
        x, y = (x, y) if in_steps else thin(x, y, POINTS)
        kind = "step" if in_steps else "line"
        dash = DASHES[k // 6 % len(DASHES)]
        series.append(Series(name, x.tolist(), y.tolist(), color(k), kind, dash))
    return [each for each in series if each.x]
