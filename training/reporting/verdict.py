"""The verdict on a run: one sentence and three numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .history import History
from .words import format_rate


@dataclass(frozen=True)
class Verdict:
    """The first thing that a report says."""

    sentence: str
    kind: Literal["good", "bad", "open"]
    """Whether the model is better than the best baseline without a model; None if not known."""
    entries: tuple[tuple[str, str], ...]
    """The measure, the states and the speed: each value with what it is."""


def verdict_of(history: History) -> Verdict:
    """The verdict on a run, finished or not."""
    sentence, kind = _judged(history)
    entries = (_score(history), _states(history), _speed(history))
    return Verdict(sentence, kind, tuple(entry for entry in entries if entry is not None))


def best_baseline(history: History) -> tuple[str, float | int] | None:
    """The name and the value of the best baseline without a model; None if the task has none."""
    if not history.baselines:
        return None
    pick = max if history.objective.measure.higher_is_better else min
    return pick(history.baselines.items(), key=lambda item: item[1])


def _judged(history: History) -> tuple[str, Literal["good", "bad", "open"]]:
    measure = history.objective.measure
    split, result = _result(history)
    value = None if result is None else result.get(measure.key)
    if value is None:
        return f"No {measure.label} has been measured yet.", "open"
    said = f"The {split} {measure.label} is {measure.show(value)}"
    best = best_baseline(history)
    if best is None:
        return f"{said}.", "open"
    name, level = best
    against = f"the best answer without a model ({name}, {measure.show(level)})"
    if value == level:
        return f"{said}, the same as {against}.", "bad"
    difference = abs(value - level)
    shown = f"{100 * difference:.2f} points" if measure.is_share else measure.show(difference)
    is_better = (value > level) == measure.higher_is_better
    side = "above" if value > level else "below"
    return f"{said}, {shown} {side} {against}.", "good" if is_better else "bad"


def _result(history: History) -> tuple[str, Mapping[str, Any] | None]:
    """The split that counts, and what was measured on it."""
    if history.test is not None:
        return "test", history.test
    return "validation", history.validation


def _score(history: History) -> tuple[str, str] | None:
    split, result = _result(history)
    if result is None:
        return None
    measure = history.objective.measure
    label = f"{split} {measure.label}"
    if history.baselines:
        levels = (f"{name} {measure.show(value)}" for name, value in history.baselines.items())
        label += f"; without a model: {', '.join(levels)}"
    return measure.show(result.get(measure.key)), label


def _states(history: History) -> tuple[str, str] | None:
    if not history.sizes_before:
        return None
    before, after = sum(history.sizes_before), sum(history.sizes_after)
    layers = len(history.sizes_before)
    where = "states" if layers == 1 else f"states in {layers} layers"
    if before == after:
        return str(before), where
    return f"{before} → {after}", f"{where}: {100 * after / max(1, before):.0f} % stay"


def _speed(history: History) -> tuple[str, str] | None:
    speeds = history.program_speeds()
    if len(speeds) < 2:
        return None
    first, last = speeds[0], speeds[-1]
    if first.rate is None or last.rate is None:
        return "not measured", "speed-up: one of the two programs has never run alone"
    return (
        f"{last.rate / first.rate:.2f} x",
        f"speed of the program for {last.states} states against that for {first.states}, each "
        f"alone: {format_rate(first.rate)} → {format_rate(last.rate)} steps/s",
    )
