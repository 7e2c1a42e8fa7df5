"""The style of the figures of studies and of the documentation, and their files."""

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

STYLE = Path(__file__).with_name("paper.mplstyle")
"""The one style file."""

FIGURES = "figures"
"""The folder inside a study's folder that the figures are written to."""

SOFT = "#5b6b7a"
"""The colour of a symbol in a legend that stands for every series."""


class Look(NamedTuple):
    """The look of one series: three properties that distinguish it."""

    color: str
    marker: str
    linestyle: Any


@contextmanager
def paper_style() -> Iterator[None]:
    """Figures made inside this context have the style of `paper.mplstyle`."""
    with matplotlib.rc_context(fname=STYLE):
        yield


def looks(count: int) -> list[Look]:
    """The looks of `count` series. After six colours, the next six have the next markers."""
    cycle = matplotlib.rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"]
    by_key = cycle.by_key()
    size = len(by_key["color"])
    return [
        Look(
            by_key["color"][k % size],
            by_key["marker"][(k + k // size) % size],
            by_key["linestyle"][(k + k // size) % size],
        )
        for k in range(count)
    ]


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name.svg` and `name.pdf` to `folder`. The same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    FigureCanvasPdf(figure)
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    # a hundredth of a point is finer than any screen or printer
    text = re.sub(r'(?<=[ dxyML"(,-])(\d+\.\d\d)\d+', r"\1", buffer.getvalue().decode())
    (folder / f"{name}.svg").write_text(text)
    return [folder / f"{name}.svg", folder / f"{name}.pdf"]


def label_beside(
    axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], colors: Sequence[str]
) -> None:
    """Write the name of each point to the right of the axes, joined to it by a line of its colour.

    `points` are in data coordinates, once all else is drawn. Names keep the order
    of their points from bottom to top and never overlap.
    """
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    at = [to_axes.transform(point) for point in points]
    figure = axes.figure
    height = axes.get_position().height * figure.bbox.height / figure.dpi  # inches
    gap = 1.35 * matplotlib.rcParams["legend.fontsize"] / 72 / max(height, 1e-6)
    order = sorted(range(len(points)), key=lambda k: (at[k][1], at[k][0]))
    heights = spread([float(np.clip(at[k][1], 0, 1)) for k in order], gap)
    beside = blended_transform_factory(axes.transAxes, axes.transAxes)
    for k, y in zip(order, heights, strict=True):
        axes.annotate(
            names[k],
            xy=points[k],
            xycoords="data",
            xytext=(1.03, y),
            textcoords=beside,
            fontsize=matplotlib.rcParams["legend.fontsize"],
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colors[k],
                "linewidth": 0.8,
                "alpha": 0.7,
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending `heights`, moved as little as needed to lie `gap` or more apart.

    Groups that would overlap are centred on the mean of their heights.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _low(groups[-1], gap) < _low(groups[-2], gap) + gap * len(
            groups[-2]
        ):
            last = groups.pop()
            groups[-1] += last
    return list(
        itertools.chain.from_iterable(
            [_low(group, gap) + gap * k for k in range(len(group))] for group in groups
        )
    )


def _low(group: Sequence[float], gap: float) -> float:
    """The lowest height of a group that is centred on its mean."""
    return float(np.mean(group)) - gap * (len(group) - 1) / 2
