"""Figures as data: what `report.js` draws in a page. Nothing here knows of a run.

Long curves are thinned out: the size of a page does not grow with its run.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

DASHES = ("", "6 3", "2 3", "8 3 2 3")
"""SVG dash patterns, for lines that differ in more than their colour."""


def color(k: int) -> str:
    """The colour of the series number `k`, as CSS. The style sheet has six, for both schemes."""
    return f"var(--s{k % 6})"


def ramp(share: float) -> str:
    """A colour between the two ends of the ramp, for `share` in [0, 1]."""
    return f"color-mix(in oklab, var(--ramp-from), var(--ramp-to) {100 * share:.0f}%)"


@dataclass(frozen=True)
class Axis:
    """One axis of a panel. None for a limit: the data set it."""

    label: str
    log: bool = False
    percent: bool = False
    """Values are shares, shown in per cent."""
    low: float | int | None = None
    high: float | int | None = None


@dataclass(frozen=True)
class Series:
    """A curve or points. Those of one name are hidden and shown together."""

    name: str
    x: Sequence[float | int]
    y: Sequence[float | int | None]
    color: str
    kind: Literal["line", "step", "points"] = "line"
    dash: str = ""
    size: float | int = 2.5
    """Radius of points, in pixels."""
    note: str = ""
    """Shown beside the name where a reader points at the curve."""


@dataclass(frozen=True)
class Level:
    """A horizontal line."""

    name: str
    y: float | int
    dash: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes with what is drawn between them."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    marks: Sequence[float | int] = ()
    """Where vertical lines stand."""
    levels: Sequence[Level] = ()


@dataclass(frozen=True)
class Plate:
    """A figure: panels under one heading, with the caption that says what they show."""

    heading: str
    caption: str
    panels: Sequence[Panel]
    ramp: tuple[str, str] | None = None
    """The meanings of the two ends of the colour ramp, if series are coloured by it."""
    unnamed: frozenset[str] = field(default=frozenset())
    """Names of series that the legend leaves out."""

    @property
    def legend(self) -> list[dict[str, str]]:
        """Every name once, with how it is drawn."""
        found: dict[str, dict[str, str]] = {}
        for panel in self.panels:
            for series in panel.series:
                look = {"color": series.color, "kind": series.kind, "dash": series.dash}
                found.setdefault(series.name, {"name": series.name, **look})
            for level in panel.levels:
                look = {"color": color(5), "kind": "line", "dash": level.dash}
                found.setdefault(level.name, {"name": level.name, **look})
        return [entry for name, entry in found.items() if name not in self.unnamed]


def as_script(plates: Mapping[str, Plate]) -> str:
    """The data of the plates by the ids of their places, as JSON that a script element can hold."""
    data = {
        name: {
            "panels": [asdict(panel) for panel in plate.panels],
            "legend": plate.legend,
            "ramp": plate.ramp,
        }
        for name, plate in plates.items()
    }
    text = json.dumps(_rounded(data), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c")


def thin(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a curve: means over equal stretches, of what is finite."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x)), most)
    keep = [part[np.isfinite(y[part])] for part in parts]
    thick = [(x[part].mean(), y[part].mean()) if len(part) else None for part in keep]
    points = [
        (float(x[part].mean()), math.nan) if point is None else point
        for part, point in zip(parts, thick, strict=True)
    ]
    return np.array([p[0] for p in points]), np.array([p[1] for p in points])


def _rounded(value: Any) -> Any:
    """`value` as JSON can hold it, numbers with five digits and those that are not finite null."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _rounded(value.tolist())
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        number = float(f"{value:.5g}")
        return None if not math.isfinite(value) else int(number) if number.is_integer() else number
    return value
