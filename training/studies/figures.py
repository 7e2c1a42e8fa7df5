"""The figures of a study, drawn from the records of its runs."""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from ..reporting.plates import thin
from .rows import Record, Records, Row, score_name
from .study import Study
from .style import SOFT, label_beside, looks, paper_style, write_figure

MOST_PANELS = 9
"""Panels in the figure of the spectra."""
_SPECTRUM_POINTS = 48
_FLOOR = 1e-8  # singular values below this share of the largest are left out


def write_figures(study: Study, rows: Sequence[Row], records: Records, folder: Path) -> list[Path]:
    """Every figure for which there are runs, as SVG and PDF; the files."""
    makers: dict[str, Callable[[], Figure | None]] = {
        "accuracy_state": lambda: score_against_state(score_name(records), rows),
        "accuracy_time": lambda: score_against_time(score_name(records), rows),
        "ranks": lambda: ranks(study, records),
        "spectra": lambda: spectra(study, records),
    }
    written = []
    with paper_style():
        for name, make in makers.items():
            figure = make()
            if figure is not None:
                written += write_figure(figure, folder, name)
    return written


def score_against_state(score: str, rows: Sequence[Row]) -> Figure | None:
    """The test score of every variant over the states that its layers end with."""
    found = _score_against(score, rows, "states", "states of a layer at the end")
    if found is None:
        return None
    figure, axes, rows = found
    published = [
        (row.variant.published.states, row.variant.published.score, look.color)
        for row, look in zip(rows, looks(len(rows)), strict=True)
        if row.variant.published.states is not None and row.variant.published.score is not None
    ]
    for states, value, color in published:
        axes.plot([states], [value], "x", color=color, markersize=6)
    axes.set_xscale("log")
    axes.margins(0.08)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    _name_rows(axes, rows, "states")
    if published:
        handles = [
            Line2D([], [], color=SOFT, marker="o", linestyle="", label="measured"),
            Line2D([], [], color=SOFT, marker="x", linestyle="", label="published"),
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


def score_against_time(score: str, rows: Sequence[Row]) -> Figure | None:
    """The test score of every variant over the wall time of a whole run."""
    found = _score_against(score, rows, "seconds", "wall time of a whole run, s")
    if found is None:
        return None
    figure, axes, rows = found
    axes.margins(0.08)
    _name_rows(axes, rows, "seconds")
    return figure


def _score_against(
    score: str, rows: Sequence[Row], what: str, label: str
) -> tuple[Figure, Axes, list[Row]] | None:
    """Points with their spread over seeds in both directions, and the rows that have any."""
    rows = [row for row in rows if not math.isnan(getattr(row, what).mean)]
    if not rows:
        return None
    figure = Figure(figsize=(7.0, max(3.2, 0.9 + 0.2 * len(rows))))
    axes = figure.subplots()
    for row, look in zip(rows, looks(len(rows)), strict=True):
        x = getattr(row, what)
        axes.errorbar(
            x.mean, row.score.mean, xerr=x.deviation, yerr=row.score.deviation,
            marker=look.marker, linestyle="", color=look.color, elinewidth=0.9,
        )  # fmt: skip
    axes.set_xlabel(label)
    axes.set_ylabel(score)
    return figure, axes, rows


def _name_rows(axes: Axes, rows: Sequence[Row], what: str) -> None:
    points = [(getattr(row, what).mean, row.score.mean) for row in rows]
    label_beside(
        axes,
        points,
        [row.variant.name for row in rows],
        [look.color for look in looks(len(rows))],
    )


def ranks(study: Study, records: Records) -> Figure | None:
    """Mean states of a layer over the steps: a line for each run that shrinks."""
    shrinking = [record for record in records.values() if record["shrinks"]]
    names = [v.name for v in study.variants if any(r["variant"] == v.name for r in shrinking)]
    if not names:
        return None
    window = 1.15 * max(shrink["step"] for record in shrinking for shrink in record["shrinks"])
    figure = Figure(figsize=(7.0, max(3.2, 0.9 + 0.2 * len(names))))
    axes = figure.subplots()
    ends = []
    for name, look in zip(names, looks(len(names)), strict=True):
        runs = [record for record in shrinking if record["variant"] == name]
        for record in runs:
            steps, states = _course(record, window)
            axes.step(
                steps, states, where="post", color=look.color, linestyle=look.linestyle,
                marker="", alpha=0.85, linewidth=1.1,
            )  # fmt: skip
        ends.append((window, float(np.mean([_course(record, window)[1][-1] for record in runs]))))
    axes.set_xlim(0, window)
    axes.set_ylim(0, None)
    axes.set_xlabel("training step")
    axes.set_ylabel("states of a layer")
    label_beside(axes, ends, names, [look.color for look in looks(len(names))])
    return figure


def _course(record: Record, last: float) -> tuple[list[float], list[float]]:
    """Steps and the mean states of a layer from then on, up to the step `last`."""
    shrinks = record["shrinks"]
    steps = [0.0, *(shrink["step"] for shrink in shrinks), last]
    states = [np.mean(shrinks[0]["before"]), *(np.mean(shrink["after"]) for shrink in shrinks)]
    return [float(x) for x in steps], [float(x) for x in (*states, states[-1])]


def spectra(study: Study, records: Records) -> Figure | None:
    """The first layer's Hankel singular values over training, in the runs of the first seed."""
    with_spectra = [record for record in records.values() if len(record["spectra"]) > 1]
    if not with_spectra:
        return None
    seed = min(record["seed"] for record in with_spectra)
    order = [variant.name for variant in study.variants]
    runs = sorted(
        (r for r in with_spectra if r["seed"] == seed), key=lambda r: order.index(r["variant"])
    )[:MOST_PANELS]
    columns = min(3, len(runs))
    lines = -(-len(runs) // columns)
    figure = Figure(figsize=(7.0, 0.8 + 1.9 * lines))
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    last = max(curve["step"] for record in runs for curve in record["spectra"])
    norm = Normalize(0, last)
    # the palest colours could not be seen on white
    colors = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1, 256)))
    for axes, record in zip(grid, runs, strict=False):
        _spectra(axes, record, norm, colors)
    for axes in grid[len(runs) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(runs) - columns) : len(runs)]:
        axes.set_xlabel("index")
    for axes in grid[::columns]:
        axes.set_ylabel("singular value")
    figure.colorbar(ScalarMappable(norm, colors), ax=list(grid), label="training step", aspect=40)
    return figure


def _spectra(axes: Axes, record: Record, norm: Normalize, colors: Colormap) -> None:
    for curve in record["spectra"]:
        sigma = np.array([np.nan if s is None else s for s in curve["sigma"][0]], float)
        sigma = np.where(sigma > _FLOOR * np.nanmax(sigma), sigma, np.nan)
        x, y = thin(np.arange(1, len(sigma) + 1.0), sigma, _SPECTRUM_POINTS)
        axes.plot(x, y, color=colors(norm(curve["step"])), linewidth=1, marker="", linestyle="-")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_title(textwrap.fill(record["variant"], 26))
