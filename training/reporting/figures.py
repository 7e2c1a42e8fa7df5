"""The figures of a report, from what a run has logged."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .history import History
from .plates import DASHES, Axis, Level, Panel, Plate, Series, color, ramp, thin

_POINTS = 400  # on a curve over the steps
_SPECTRUM_POINTS = 64  # on one spectrum
_SPECTRA = 16  # for one layer
_ALL_SPECTRUM_POINTS = 16_000
_MOST_LAYERS = 24  # drawn one by one; the page's tables hold all
_MOST_MARKS = 40
_FLOOR = 1e-10  # singular values below this share of the largest are left out

STEPS = "training step"


def all_plates(history: History) -> dict[str, Plate]:
    """Every figure for which the run holds data, by its name."""
    makers = {
        "curves": curves,
        "spectra": spectra,
        "sizes": state_sizes,
        "times": step_times,
    }
    found = {name: make(history) for name, make in makers.items()}
    return {name: plate for name, plate in found.items() if plate is not None}


def curves(history: History) -> Plate | None:
    """The main measure, and the loss, over the steps."""
    train, evals = history.named("train"), history.named("eval")
    if not train and not evals:
        return None
    objective, measure = history.objective, history.objective.measure
    levels = [
        Level(f"without a model: {name}", value, DASHES[1 + k % 3])
        for k, (name, value) in enumerate(history.baselines.items())
    ]
    panels = [
        Panel(
            measure.label,
            _steps(history),
            _measured_axis(measure.label, train, evals, measure.key, measure.is_share),
            over_steps(history, measure.key),
            marks(history),
            levels,
        ),
        Panel(
            "loss",
            _steps(history),
            _measured_axis(objective.loss, train, evals, "loss", False),
            over_steps(history, "loss"),
            marks(history),
        ),
    ]
    heading = f"{measure.label[:1].upper()}{measure.label[1:]} and loss"
    caption = f"{heading} over the training steps. Train values are means between two reports. "
    return Plate(heading, caption + marks_caption(history), panels)


def over_steps(history: History, key: str) -> list[Series]:
    """A measure on each split over the steps, by its key in the log."""
    train, evals = history.named("train"), history.named("eval")
    found = [_curve("train", train, key, "var(--train)")]
    validation = [event for event in evals if event["split"] == "validation"]
    found.append(_curve("validation", validation, key, color(0)))
    tests = [event for event in evals if event["split"] == "test"][-1:]
    if tests:
        steps, values = _column(tests, "step"), _column(tests, key)
        found.append(Series("test", steps.tolist(), values.tolist(), color(1), "points", size=5))
    return [series for series in found if len(series.x)]


def _curve(name: str, events: Sequence[Any], key: str, shade: str) -> Series:
    steps, values = thin(_column(events, "step"), _column(events, key), _POINTS)
    return Series(name, steps.tolist(), values.tolist(), shade)


def _measured_axis(
    label: str, train: Sequence[Any], evals: Sequence[Any], key: str, is_share: bool
) -> Axis:
    values = np.concatenate([_column(train, key), _column(evals, key)])
    values = values[np.isfinite(values)]
    wide = bool(values.size and values.min() > 0 and values.max() > 20 * values.min())
    return Axis(label, log=wide and not is_share, percent=is_share)


class Spectrum(NamedTuple):
    """One layer's Hankel singular values at one step."""

    step: int
    sigma: np.ndarray
    kept: int | None
    """States that stayed, where a shrink cut the layer at this step."""
    source: str
    """The source of the values: white noise, or data."""


def spectra_of(history: History) -> dict[str, list[Spectrum]]:
    """The spectra of every layer in order, by the layer's path."""
    seen: dict[str, list[Spectrum]] = {}
    sources: dict[str, str] = {}
    for event in history.events:
        if event["event"] not in ("spectrum", "shrink"):
            continue
        for row in event["layers"]:
            cut = event["event"] == "shrink" and row["after"] != row["before"]
            sigma = np.array([math.nan if s is None else s for s in row["sigma"]], dtype=float)
            source = source_of(row, sources.get(row["path"], ""))
            sources[row["path"]] = source
            if np.any(sigma > 0):
                found = Spectrum(event["step"], sigma, row["after"] if cut else None, source)
                seen.setdefault(row["path"], []).append(found)
    return seen


def source_of(row: Any, before: str = "") -> str:
    """The source of a layer's values in a shrink or spectrum event. `before` is the previous
    source, for logs without one in each spectrum.
    """
    said = row.get("gramians")
    if said is None:
        return before or "white noise"
    return "white noise" if said.startswith("white noise") else "data"


def spectra(history: History) -> Plate | None:
    """Every layer's Hankel singular values over time."""
    seen = spectra_of(history)
    paths = [path for path in (history.paths or list(seen)) if path in seen][:_MOST_LAYERS]
    if not paths:
        return None
    steps = [found.step for path in paths for found in seen[path]]
    first, last = min(steps), max(steps)
    most = max(4, min(_SPECTRA, _ALL_SPECTRUM_POINTS // (_SPECTRUM_POINTS * len(paths))))
    panels = [_spectrum_panel(path, _fewer(seen[path], most), first, last) for path in paths]
    left_out = len(history.paths) - len(paths)
    return Plate(
        "Hankel singular values",
        "The Hankel singular values σ of each layer, largest first. σ is the square root of an "
        "eigenvalue of P·Q, where P measures how strongly inputs reach a state and Q how strongly "
        "the state reaches the output. For values by data, P and Q are measured on training "
        "sequences (solid); for values by white noise they follow from the layer alone (dashed). "
        "A dot marks where a shrink cut: the values to its right were dropped."
        + (f" Not drawn: {left_out} more layers." if left_out > 0 else ""),
        panels,
        ramp=(f"step {first}", f"step {last}"),
    )


def _spectrum_panel(path: str, found: Sequence[Spectrum], first: int, last: int) -> Panel:
    highest = max(float(np.nanmax(each.sigma)) for each in found)
    series = []
    for each in found:
        # shrinks come early in a run: the root spreads the first steps over more of the ramp
        shade = ramp(math.sqrt((each.step - first) / max(1, last - first)))
        shown = np.where(each.sigma > _FLOOR * highest, each.sigma, np.nan)
        index = np.unique(np.linspace(0, len(shown) - 1, _SPECTRUM_POINTS).round().astype(int))
        dash = DASHES[1] if each.source == "white noise" else DASHES[0]
        note = f"step {each.step}"
        name = f"by {each.source}"
        series.append(
            Series(
                name, (index + 1).tolist(), shown[index].tolist(), shade, "line", dash, note=note
            )
        )
    cuts = [
        (each.kept, float(each.sigma[min(each.kept, len(each.sigma)) - 1]), each.step)
        for each in found
        if each.kept
    ]
    if cuts:
        series += [
            Series("cut", [kept], [level], "var(--cut)", "points", size=4, note=f"step {step}")
            for kept, level, step in cuts
        ]
    return Panel(path, Axis("index", low=0), Axis("σ", log=True), series)


def state_sizes(history: History) -> Plate | None:
    """The states of every layer over the steps."""
    changes = history.size_changes
    if not changes:
        return None
    steps = [step for step, _ in changes] + [max(history.last_step, changes[-1][0] + 1)]
    sizes = np.array([row for _, row in changes] + [changes[-1][1]])
    # The cuts of a run usually lie in its first tenth; then a second panel shows these steps alone.
    last_cut = changes[-1][0]
    zoomed = 0 < last_cut < 0.4 * history.last_step
    groups: dict[tuple[int, ...], list[str]] = {}
    for path, column in zip(history.paths, sizes.T.tolist(), strict=True):
        groups.setdefault(tuple(column), []).append(path)
    drawn = list(groups.items())[:_MOST_LAYERS]
    series = [
        Series(_together(paths), steps, list(column), color(k), "step", DASHES[k // 6 % 4])
        for k, (column, paths) in enumerate(drawn)
    ]
    states = Axis("states", low=0)
    panels = [Panel("whole run", _steps(history), states, series, marks(history))]
    if zoomed:
        early = Axis(STEPS, low=0, high=round(1.3 * last_cut))
        panels.append(Panel("while it was cut", early, states, series, marks(history)))
    left_out = len(groups) - len(drawn)
    return Plate(
        "States of each layer",
        "States that each layer stores, over the training steps. Layers that always had as many "
        "states share a line. " + marks_caption(history)
        + (f" Not drawn: {left_out} more lines." if left_out else ""),
        panels,
    )  # fmt: skip


def _together(paths: Sequence[str]) -> str:
    """The names of layers that share a line."""
    if len(paths) <= 3:
        return ", ".join(paths)
    return f"{paths[0]}, {paths[1]} and {len(paths) - 2} more"


def step_times(history: History) -> Plate | None:
    """Milliseconds for a step over the steps, and of each program alone."""
    train = [event for event in history.named("train") if event.get("steps_per_second")]
    if not train:
        return None
    beside = [event for event in train if not event.get("alone", True)]
    alone = [event for event in train if event.get("alone", True)]
    series = []
    for name, events, shade in (
        ("alone", alone, color(0)),
        ("while programs compile", beside, color(1)),
    ):
        if events:
            times = 1e3 / _column(events, "steps_per_second")
            steps, shown = thin(_column(events, "step"), times, _POINTS)
            series.append(Series(name, steps.tolist(), shown.tolist(), shade, "points"))
    panel = Panel(
        "between two reports",
        _steps(history),
        Axis("milliseconds a step", low=0),
        series,
        marks(history),
    )
    return Plate(
        "Time of a step",
        "Wall time of one training step between two reports. Programs for smaller layers are "
        "compiled in the background, which slows training down meanwhile; a speed-up is that of "
        f"programs alone. {marks_caption(history)}",
        [panel],
    )


def marks(history: History) -> list[int]:
    """The steps of the cuts, unless they are too many to be drawn."""
    cuts = [event["step"] for event in history.cuts]
    return cuts if len(cuts) <= _MOST_MARKS else []


def marks_caption(history: History) -> str:
    """The meaning of the vertical lines of `marks`."""
    cuts = len(history.cuts)
    if cuts == 0:
        return "Nothing was cut in this run."
    if cuts > _MOST_MARKS:
        return f"The {cuts} shrinks are too many to be marked."
    if cuts == 1:
        return "A dotted line marks the shrink."
    return f"Dotted lines mark the {cuts} shrinks."


def _fewer(found: Sequence[Spectrum], most: int) -> list[Spectrum]:
    """About `most` of the spectra: those of a cut, the first, the last and some between."""
    wanted = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    cut = [i for i, each in enumerate(found) if each.kept is not None]
    if len(cut) > most:
        cut = [cut[i] for i in np.linspace(0, len(cut) - 1, most).round().astype(int)]
    return [found[i] for i in sorted({*wanted.tolist(), *cut})]


def _steps(history: History) -> Axis:
    return Axis(STEPS, low=0, high=max(1, history.last_step))


def _column(events: Sequence[Any], key: str) -> np.ndarray:
    values = [event.get(key) for event in events]
    return np.array([math.nan if value is None else value for value in values], dtype=float)
