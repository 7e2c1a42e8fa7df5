"""Formatting of numbers for readers."""

import math

from ..model.objective import Objective
from .events import Event

MOST_NAMED = 4
"""The most layers that a line of text names one by one."""


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


def format_number(value: float | int | None, spec: str) -> str:
    """A number as `spec` has it, or "not finite"."""
    return "not finite" if value is None or not math.isfinite(value) else format(value, spec)


def format_measures(event: Event, objective: Objective) -> list[str]:
    """Every measure in an event, with its name."""
    return [f"{m.label} {m.show(event[m.key])}" for m in objective.measures if m.key in event]


def format_count(value: int) -> str:
    """A whole number with a space between thousands."""
    return f"{value:,}".replace(",", " ")


def format_rate(value: float | int) -> str:
    """Steps per second, three digits or more."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def format_sizes(sizes: list[int]) -> str:
    """The states of the layers, in a few words for any number of layers."""
    if len(sizes) > 1 and len(set(sizes)) == 1:
        return f"{len(sizes)} x {sizes[0]}"
    if len(sizes) > MOST_NAMED:
        return f"{sum(sizes)} in {len(sizes)} layers"
    return "+".join(map(str, sizes))
