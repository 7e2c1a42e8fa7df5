"""The plots of a study, as SVG files."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..reporting.figures import STYLE, thin
from .rows import Record, Records, Row, score_name
from .study import Study


def write_figures(study: Study, rows: Sequence[Row], records: Records, folder: Path) -> list[Path]:
    """Every plot for which there are runs; the files."""
    makers: dict[str, Callable[[], Figure | None]] = {
        "accuracy_state": lambda: score_against(
            score_name(records), rows, "states", "final state of a layer", logarithmic=True
        ),
        "accuracy_time": lambda: score_against(
            score_name(records), rows, "seconds", "wall time of a whole run [s]", logarithmic=False
        ),
        "ranks": lambda: ranks(study, records),
        "spectra": lambda: spectra(study, records),
    }
    written = []
    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": study.name}
    with matplotlib.rc_context(style):
        for name, make in makers.items():
            figure = make()
            if figure is not None:
                FigureCanvasSVG(figure)
                written.append(folder / f"{name}.svg")
                figure.savefig(written[-1], metadata={"Date": None})
    return written


def score_against(
    score: str, rows: Sequence[Row], what: str, label: str, *, logarithmic: bool
) -> Figure | None:
    """The score of every variant, with its spread over seeds in both directions."""
    rows = [row for row in rows if not math.isnan(getattr(row, what).mean)]
    if not rows:
        return None
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    colours = _colours(len(rows))
    for row, colour in zip(rows, colours, strict=True):
        x = getattr(row, what)
        axes.errorbar(
            x.mean, row.score.mean, xerr=x.deviation, yerr=row.score.deviation,
            fmt="o", ms=6, color=colour, capsize=3, label=row.variant.name,
        )  # fmt: skip
    if what == "states":
        first = True
        for row, colour in zip(rows, colours, strict=True):
            told = row.variant.published
            if told.states is not None and told.score is not None:
                label_once = "published, at the paper's setting" if first else None
                axes.plot([told.states], [told.score], "x", ms=7, color=colour, label=label_once)
                first = False
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel(score)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def ranks(study: Study, records: Records) -> Figure | None:
    """Mean state of a layer over the steps, a line for each run that shrinks."""
    shrinking = [r for r in records.values() if r["shrinks"]]
    if not shrinking:
        return None
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    names = [v.name for v in study.variants if any(r["variant"] == v.name for r in shrinking)]
    for name, colour in zip(names, _colours(len(names)), strict=True):
        for k, record in enumerate(r for r in shrinking if r["variant"] == name):
            first = record["shrinks"][0]
            last = record["summary"]["total_steps"]
            steps = [0, *(s["step"] for s in record["shrinks"]), last]
            states = [np.mean(first["before"]), *(np.mean(s["after"]) for s in record["shrinks"])]
            axes.step(
                steps, [*states, states[-1]], where="post", color=colour, linewidth=1.2,
                label=name if k == 0 else None,
            )  # fmt: skip
    window = max(s["step"] for r in shrinking for s in r["shrinks"])
    axes.set_xlim(0, 1.15 * window)
    axes.set_ylim(0, None)
    axes.set_xlabel("training step")
    axes.set_ylabel("state of a layer")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def spectra(study: Study, records: Records) -> Figure | None:
    """The first layer's Hankel singular values over training, in the runs of the first seed."""
    with_spectra = [r for r in records.values() if len(r["spectra"]) > 1]
    if not with_spectra:
        return None
    seed = min(r["seed"] for r in with_spectra)
    order = [variant.name for variant in study.variants]
    runs = sorted(
        (r for r in with_spectra if r["seed"] == seed), key=lambda r: order.index(r["variant"])
    )[:9]
    columns = min(3, len(runs))
    lines = -(-len(runs) // columns)
    figure = Figure(figsize=(3.3 * columns, 0.6 + 2.5 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, record in zip(grid, runs, strict=False):
        _spectra(axes, record)
    for axes in grid[len(runs) :]:
        axes.set_visible(False)
    for axes in grid[::columns]:
        axes.set_ylabel("sigma of the first layer")
    return figure


def _spectra(axes: Axes, record: Record) -> None:
    curves = record["spectra"]
    for curve, colour in zip(curves, _colours(len(curves)), strict=True):
        sigma = np.array([np.nan if s is None else s for s in curve["sigma"][0]], float)
        sigma = np.where(sigma > 1e-8 * np.nanmax(sigma), sigma, np.nan)
        x, y = thin(np.arange(1, len(sigma) + 1.0), sigma, 96)
        axes.plot(x, y, color=colour, linewidth=1.1)
    axes.set_yscale("log")
    axes.set_title(f"{record['variant']}, steps {curves[0]['step']} to {curves[-1]['step']}")
    axes.set_xlabel("index")


def _colours(count: int) -> list[Any]:
    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, max(count, 1))))[:count]
