"""The figures of a report, as SVG that can stand inside a page.

Long runs are thinned out before they are drawn: the size of a page does not grow with the run.
"""

import io
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from .history import History

_POINTS = 600  # on a curve over the steps
_SPECTRUM_POINTS = 96  # on one spectrum
_SPECTRA = 24  # for one layer
_ALL_SPECTRUM_POINTS = 24_000
_MOST_LAYERS = 24  # drawn one by one; the page's tables hold all
_FLOOR = 1e-10  # singular values below this share of the largest are left out

_TRAIN, _VALIDATION, _TEST, _CUT = "#8fb3c4", "#0b6e8a", "#c4472b", "#c4472b"
_LAYERS = "viridis"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: it can be selected, and the page picks the font
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa7b2",
    "axes.labelcolor": "#3b4854",
    "text.color": "#1c2733",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e8edf1",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#5b6b7a",
    "ytick.color": "#5b6b7a",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


class Plate(NamedTuple):
    """A figure with its heading and the caption that says what it shows."""

    heading: str
    svg: str
    caption: str


def all_plates(history: History) -> list[Plate]:
    """Every figure for which the run holds data."""
    makers = (curves, spectra, state_sizes, step_times)
    with matplotlib.rc_context(STYLE):
        return [plate for maker in makers if (plate := maker(history)) is not None]


def curves(history: History) -> Plate | None:
    """The measure that counts, and the loss, over the steps."""
    train, evals = history.named("train"), history.named("eval")
    if not train and not evals:
        return None
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    objective, measure = history.objective, history.objective.measure
    measure_axes, loss_axes = figure.subplots(1, 2)
    for axes, key in ((measure_axes, measure.key), (loss_axes, "loss")):
        steps, values = thin(_column(train, "step"), _column(train, key), _POINTS)
        axes.plot(steps, values, color=_TRAIN, label="train", linewidth=1.3)
        validation = [event for event in evals if event["split"] == "validation"]
        steps, values = thin(_column(validation, "step"), _column(validation, key), _POINTS)
        marker = "o" if len(steps) <= 60 else None
        axes.plot(steps, values, color=_VALIDATION, marker=marker, ms=3, label="validation")
        tests = [event for event in evals if event["split"] == "test"]
        if tests:
            steps, values = _column(tests[-1:], "step"), _column(tests[-1:], key)
            axes.plot(steps, values, "D", color=_TEST, ms=6, label="test", clip_on=False, zorder=5)
        axes.set_title("loss" if axes is loss_axes else measure.label)
        _mark_shrinks(axes, history)
        _step_axis(axes, history)
    for i, (name, value) in enumerate(history.baselines.items()):
        style = (0, (4, 2 + 2 * i))
        measure_axes.axhline(value, color="#7a6a2f", linestyle=style, linewidth=1, label=name)
    if measure.is_share:
        measure_axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        measure_axes.set_ylabel("share of right answers")
    loss_axes.set_ylabel(objective.loss)
    for axes, key in ((measure_axes, measure.key), (loss_axes, "loss")):
        values = np.concatenate([_column(train, key), _column(evals, key)])
        values = values[np.isfinite(values)]
        wide = values.size and values.min() > 0 and values.max() > 20 * values.min()
        if wide and not (axes is measure_axes and measure.is_share):
            axes.set_yscale("log")
    handles, labels = measure_axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    heading = f"{measure.label[:1].upper()}{measure.label[1:]} and loss"
    return Plate(
        heading,
        as_svg(figure, "curves"),
        f"{heading} over the training steps; train values are means over the steps between "
        f"two reports. {_shrink_caption(history)}"
        + (" The dashed level lines are reached without a model." if history.baselines else ""),
    )


def spectra(history: History) -> Plate | None:
    """Every layer's Hankel singular values over time."""
    seen: dict[str, list[tuple[int, np.ndarray, int | None]]] = {}
    for event in history.events:
        if event["event"] not in ("spectrum", "shrink"):
            continue
        for row in event["layers"]:
            cut = row["after"] if event["event"] == "shrink" else None
            if cut is not None and cut == row["before"]:
                cut = None
            sigma = np.array([math.nan if s is None else s for s in row["sigma"]], dtype=float)
            if np.any(sigma > 0):
                seen.setdefault(row["path"], []).append((event["step"], sigma, cut))
    paths = [path for path in (history.paths or list(seen)) if path in seen][:_MOST_LAYERS]
    if not paths:
        return None
    columns = len(paths) if len(paths) <= 2 else 2 if len(paths) == 4 else 3
    rows = math.ceil(len(paths) / columns)
    figure = Figure(figsize=(10.4, 0.7 + 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    steps = [step for path in paths for step, _, _ in seen[path]]
    # Shrinks come early in a run: the root spreads the first steps over more of the colours. The
    # palest of them could not be seen on white.
    norm = PowerNorm(0.5, min(steps), max(max(steps), min(steps) + 1))
    colours = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, 256)))
    most = max(4, min(_SPECTRA, _ALL_SPECTRUM_POINTS // (_SPECTRUM_POINTS * len(paths))))
    for axes, path in zip(grid, paths, strict=False):
        _spectrum(axes, _fewer(seen[path], most), norm, colours)
        axes.set_title(path)
    for axes in grid[len(paths) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(paths) - columns) : len(paths)]:
        axes.set_xlabel("index of the singular value")
    for axes in grid[: len(paths) : columns]:
        axes.set_ylabel("sigma")
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=list(grid), aspect=40, pad=0.01, label="training step"
    )
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    left_out = len(history.paths) - len(paths)
    return Plate(
        "Hankel singular values",
        as_svg(figure, "spectra"),
        "The Hankel singular values of each layer, largest first, on a logarithmic scale and "
        "coloured by the training step at which they were taken. A red tick marks where a shrink "
        "cut: the values to its right were dropped."
        + (f" Not drawn: {left_out} more layers." if left_out > 0 else ""),
    )


def _spectrum(
    axes: Axes,
    curves: Sequence[tuple[int, np.ndarray, int | None]],
    norm: Normalize,
    colours: Any,
) -> None:
    highest = max(np.nanmax(sigma) for _, sigma, _ in curves)
    lowest = highest
    for step, sigma, cut in curves:
        shown = np.where(sigma > _FLOOR * highest, sigma, np.nan)
        lowest = min(lowest, np.nanmin(shown)) if np.any(np.isfinite(shown)) else lowest
        index = np.unique(np.linspace(0, len(sigma) - 1, _SPECTRUM_POINTS).round().astype(int))
        axes.plot(index + 1, shown[index], color=colours(norm(step)), linewidth=1.2, alpha=0.9)
        if cut:
            level = shown[min(cut, len(shown)) - 1]
            axes.plot([cut + 0.5], [level], "|", color=_CUT, ms=13, mew=2, zorder=5)
    axes.set_yscale("log")
    axes.set_ylim(lowest / 2, highest * 2)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))


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
    figure = Figure(figsize=(10.4, 3.4), layout="constrained")
    panels = figure.subplots(1, 2 if zoomed else 1, squeeze=False, sharey=True).ravel()
    layers = min(sizes.shape[1], _MOST_LAYERS)
    colours = matplotlib.colormaps[_LAYERS](np.linspace(0.05, 0.85, layers))
    for axes in panels:
        for i in range(layers):
            # Layers of equal size would hide each other: a small shift keeps each line visible.
            shift = 0.008 * sizes.max() * (i - (layers - 1) / 2) if layers <= 12 else 0.0
            label = history.paths[i] if axes is panels[0] else None
            values = sizes[:, i] + shift
            axes.step(steps, values, where="post", color=colours[i], label=label)
        axes.set_ylim(0, 1.06 * sizes.max())
        _mark_shrinks(axes, history)
        _step_axis(axes, history)
    panels[0].set_ylabel("states")
    if zoomed:
        panels[0].set_title("whole run")
        panels[1].set_title("while it was cut")
        panels[1].set_xlim(0, 1.3 * last_cut)
    if layers > 1:
        figure.legend(loc="outside right upper", fontsize=8 if layers <= 12 else 7)
    return Plate(
        "State sizes",
        as_svg(figure, "sizes"),
        "States that each layer stores (complex numbers), over the training steps. "
        + ("Lines of equal layers are drawn a little apart. " if 1 < layers <= 12 else "")
        + _shrink_caption(history)
        + (f" Not drawn: {sizes.shape[1] - layers} more layers." * (sizes.shape[1] > layers)),
    )


def step_times(history: History) -> Plate | None:
    """Milliseconds for a step, before and after each shrink."""
    train = [event for event in history.named("train") if event.get("steps_per_second")]
    phases = [phase for phase in history.phases if phase.get("steps_per_second")]
    if not train and not phases:
        return None
    figure = Figure(figsize=(10.4, 3.4), layout="constrained")
    bars, axes = figure.subplots(1, 2, sharey=True)
    times = np.array([1e3 / float(phase["steps_per_second"] or 1) for phase in phases])
    drawn = bars.bar(np.arange(len(times)), times, width=0.62, color=_VALIDATION)
    if len(times) <= 10:
        bars.bar_label(drawn, labels=[f"{time:.3g}" for time in times], padding=2, fontsize=9)
        names = [f"{phase['from_step']}–{phase['to_step']}" for phase in phases]
        states = [
            " in ".join(f"{n}" for n in dict.fromkeys(map(sum, (now, phase.get("width", now)))))
            for phase in phases
            for now in [phase["d_state"]]
        ]
        labels = [f"{name}\nstate {size}" for name, size in zip(names, states, strict=True)]
        bars.set_xticks(np.arange(len(times)), labels, fontsize=9 if len(times) <= 5 else 7)
    bars.set_xlim(-0.6, max(len(times), 3) - 0.4)
    bars.xaxis.grid(visible=False)
    bars.set_title("mean of each phase")
    bars.set_ylabel("milliseconds a step")
    steps, reported = thin(
        _column(train, "step"), 1e3 / _column(train, "steps_per_second"), _POINTS
    )
    axes.plot(steps, reported, ".", color=_VALIDATION, ms=4, alpha=0.6)
    axes.set_title("between two reports")
    # A report that holds a compilation would flatten all others, hence a percentile.
    usual = [float(np.nanpercentile(reported, 95))] if len(reported) else []
    axes.set_ylim(0, 1.2 * max([*times.tolist(), *usual]))
    _mark_shrinks(axes, history)
    _step_axis(axes, history)
    return Plate(
        "Time of a step",
        as_svg(figure, "times"),
        "Wall time of one training step, in milliseconds: left, for each phase (its steps, and the "
        "states of all layers together; for a while after a shrink in programs for more states, "
        "until those for fewer are compiled); right, for every stretch between two reports. "
        f"{_shrink_caption(history)}",
    )


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


def _fewer(curves: list[Any], most: int) -> list[Any]:
    """About `most` of the spectra: those of a cut, the first, the last and some between."""
    wanted = np.linspace(0, len(curves) - 1, min(most, len(curves))).round().astype(int)
    cut = [i for i, curve in enumerate(curves) if curve[2] is not None]
    if len(cut) > most:
        cut = [cut[i] for i in np.linspace(0, len(cut) - 1, most).round().astype(int)]
    return [curves[i] for i in sorted({*wanted.tolist(), *cut})]


def _column(events: Sequence[Any], key: str) -> np.ndarray:
    values = [event.get(key) for event in events]
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _mark_shrinks(axes: Axes, history: History) -> None:
    cuts = history.cuts
    for event in cuts if len(cuts) <= 40 else []:
        axes.axvline(event["step"], color=_CUT, linewidth=1, linestyle=(0, (2, 2)), alpha=0.8)


def _shrink_caption(history: History) -> str:
    cuts = len(history.cuts)
    if cuts == 0:
        return "Nothing was cut in this run."
    if cuts > 40:
        return f"The {cuts} shrinks are too many to be marked."
    return (
        f"Dotted red lines mark the {cuts} shrinks."
        if cuts > 1
        else "A dotted red line marks the shrink."
    )


def _step_axis(axes: Axes, history: History) -> None:
    axes.set_xlabel("training step")
    axes.set_xlim(0, max(1, history.last_step))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element, with coordinates cut to a hundredth of a point.

    Its identifiers begin with `name`, so that several can share a page.
    """
    buffer = io.BytesIO()
    FigureCanvasSVG(figure)
    # No date, and identifiers from a fixed salt: the same run gives the same page.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r'(?<=[ dxy"(,-])(\d+\.\d\d)\d+', r"\1", text)
    return text.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "").replace(
        "xlink:href", "href"
    )
