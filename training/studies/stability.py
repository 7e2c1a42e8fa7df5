"""The stability of Hankel singular values during training, which lemma 3.1 assumes. From the
systems that a run with `loop.keep_systems` has saved: the change of the values between two spectra,
its bound by Weyl's inequality, and how often two values change their order.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.analysis.tracking import Match, match, values, weyl_bound
from compress.linear.hankel import Form

from ..reporting.events import write_atomically, write_json
from ..shrinking.systems import read_systems
from .style import FIGURES, looks, paper_style, write_figure

LEADING = 10
"""The number of largest values whose overlap has a separate column."""


@dataclass(frozen=True)
class Move:
    """The change of one layer between two of its spectra."""

    step: int
    """Of the later one."""
    largest: float
    """max_i |sigma_i(after) - sigma_i(before)|, over sigma_1(before)."""
    bound: float
    """Weyl's bound on it, over sigma_1(before)."""
    found: Match
    """The matching of the values."""

    @property
    def crossing_share(self) -> float:
        """Pairs that changed their order, as a share of all pairs that are followed."""
        followed = int(np.sum(self.found.overlap >= 0.5))
        return self.found.crossings() / max(1, followed * (followed - 1) // 2)


def moves_of(folder: Path, layer: int = 0, form: Form = "complex") -> list[Move]:
    """The moves of one layer's values between the systems saved in a run directory.

    FileNotFoundError if there are fewer than two of them.
    """
    systems = [(step, found[layer]) for step, found in read_systems(folder / "systems")]
    if len(systems) < 2:
        raise FileNotFoundError(
            f"{folder / 'systems'} must hold 2 systems or more (of a run with --loop.keep-systems "
            f"True), got {len(systems)}"
        )
    weighed = [(step, system, values(system, form=form)) for step, system in systems]
    pairs = itertools.pairwise(weighed)
    return [_move(step, before, after, form) for (_, *before), (step, *after) in pairs]


def _move(step: int, before: Sequence[Any], after: Sequence[Any], form: Form) -> Move:
    """Between two systems, each with its values."""
    (system, old), (later, new) = before, after
    size = max(len(old), len(new))  # a smaller system's further values are zero
    old, new = (np.pad(x, (0, size - len(x))) for x in (old, new))
    return Move(
        step=step,
        largest=float(np.max(np.abs(new - old)) / old[0]),
        bound=weyl_bound(system, later, form=form) / float(old[0]),
        found=match(system, later, form=form),
    )


def write_stability(moves: Mapping[str, Sequence[Move]], folder: Path, command: str) -> None:
    """Write `stability.md`, `stability.json` and the figure of several runs, by name."""
    head = [
        "run", "spectra", "median move / sigma_1", "largest move / sigma_1",
        "move / Weyl's bound, median", "bound holds", "pairs that cross, median share",
        "overlap, median", f"of the first {LEADING}",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for name, found in moves.items():
        used = [m.largest / m.bound for m in found if m.bound > 0]
        rows.append(
            [
                name,
                f"{len(found) + 1}",
                f"{np.median([m.largest for m in found]):.2g}",
                f"{max(m.largest for m in found):.2g}",
                f"{np.median(used):.2f}",
                "always" if all(m.largest <= m.bound * (1 + 1e-6) for m in found) else "not always",
                f"{np.median([m.crossing_share for m in found]):.2%}",
                f"{np.median(np.concatenate([m.found.overlap for m in found])):.3f}",
                f"{np.median(np.concatenate([m.found.overlap[:LEADING] for m in found])):.3f}",
            ]
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    note = (
        "Between two successive spectra of the first layer. Values above 1e-6 of the first are "
        "followed by the overlap of their singular vectors; pairs count whose overlaps are 0.5 or "
        "more. The values of a selective layer are those of its states and the gradients by them, "
        f"at samples of the calibration sequences. Made by `{command}`."
    )
    write_atomically(folder / "stability.md", "\n".join([*lines, "", note, ""]))
    write_json(folder / "stability.json", {name: _plain(found) for name, found in moves.items()})
    with paper_style():
        write_figure(stability(moves), folder / FIGURES, "stability")


def _plain(found: Sequence[Move]) -> dict[str, list[float | int]]:
    """The data of the figure for JSON."""
    return {
        "step": [move.step for move in found],
        "largest": [move.largest for move in found],
        "bound": [move.bound for move in found],
        "crossing_share": [move.crossing_share for move in found],
    }


def stability(moves: Mapping[str, Sequence[Move]]) -> Figure:
    """The moves beside Weyl's bound, and the pairs that cross, a column for each variant."""
    variants = list(dict.fromkeys(_variant(name) for name in moves))
    figure = Figure(figsize=(7.0, 4.4))
    grid = figure.subplots(2, len(variants), squeeze=False, sharex="col", sharey="row")
    for k, variant in enumerate(variants):
        of_seeds = [found for name, found in moves.items() if _variant(name) == variant]
        _draw(grid[0, k], grid[1, k], of_seeds)
        grid[0, k].set_title(variant)
    grid[0, 0].set_ylabel("share of the first value")
    grid[1, 0].set_ylabel("pairs that cross, %")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    more, names = grid[1, 0].get_legend_handles_labels()
    figure.legend([*handles, *more], [*labels, *names], loc="outside lower center", ncols=3)
    return figure


def _variant(name: str) -> str:
    return name.rsplit("-seed", 1)[0]


def _draw(above: Axes, below: Axes, of_seeds: Sequence[Sequence[Move]]) -> None:
    bound, largest, crossing = looks(3)
    for k, found in enumerate(of_seeds):
        steps, alpha = [move.step for move in found], 1 / (k + 1)
        for axes, label, look, heights in (
            (above, "Weyl's bound", bound, [move.bound for move in found]),
            (above, "largest move", largest, [move.largest for move in found]),
            (below, "pairs that cross", crossing, [100 * move.crossing_share for move in found]),
        ):
            axes.plot(
                steps, heights, color=look.color, linestyle=look.linestyle, marker="",
                alpha=alpha, label=None if k else label,
            )  # fmt: skip
    above.set_yscale("log")
    below.set_xlabel("training step")
