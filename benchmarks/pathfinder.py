"""The speed of drawing Pathfinder pictures, and shortcuts to their labels.

benchmarks/pathfinder.py [--seconds 5] [--out results/pathfinder.json]

Rates are pictures per second of processor time on one core, so other work on the machine matters
little. Statistics compare with the published pictures as far as those are known.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from data.builtin.pathfinder.geometry import GEOMETRIES
from data.builtin.pathfinder.job import PathfinderJob
from data.builtin.pathfinder.pictures import (
    DiscCells,
    disc_distance,
    draw_pictures,
    estimate_acceptance,
)
from data.task import cell_baseline

CASES = ((16, 3), (16, 4), (32, 6), (32, 9), (32, 14), (64, 14), (128, 14))


def measure(resolution: int, length: int, seconds: float) -> dict:
    geometry = GEOMETRIES[resolution]
    start = time.process_time()
    acceptance = estimate_acceptance(geometry, length, seed=0)
    trials = time.process_time() - start
    chunk = PathfinderJob(resolution, length, 0, acceptance).chunk
    parts, start = [], time.process_time()
    while time.process_time() - start < seconds or len(parts) < 2:
        rng = np.random.default_rng([1, len(parts)])
        parts.append(draw_pictures(geometry, length, acceptance, chunk, rng))
    taken = time.process_time() - start
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    discs = np.concatenate([part.discs for part in parts])
    distractors = np.concatenate([part.distractors.direction for part in parts])
    fitted, asked = slice(0, None, 2), slice(1, None, 2)

    def accuracy(cells):
        return cell_baseline(cells[fitted], labels[fitted], cells[asked], labels[asked])

    brightness = images.mean(axis=(1, 2))
    edges = np.quantile(brightness[fitted], np.linspace(0, 1, 25)[1:-1])
    by_distance = DiscCells.fit(discs[fitted], resolution, 32, 1).index(discs)
    by_position = DiscCells.fit(discs[fitted], resolution, 16, 6).index(discs)
    dashes = 2 * length + (distractors >= 0).sum() / len(labels)
    return {
        "resolution": resolution,
        "contour_length": length,
        "pictures_per_second_and_core": len(labels) / taken,
        "trial_seconds": trials,
        "pictures": len(labels),
        "share_of_pairs_kept": float(acceptance.probability.mean()),
        "dashes_in_a_picture": float(dashes),
        "share_of_pixels_lit": float((images > 0).mean()),
        "mean_disc_distance": float(disc_distance(discs).mean()),
        "accuracy_of_disc_distance": accuracy(by_distance),
        "accuracy_of_disc_positions": accuracy(by_position),
        "accuracy_of_brightness": accuracy(np.searchsorted(edges, brightness)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the drawing of Pathfinder pictures.")
    parser.add_argument("--seconds", type=float, default=5.0, help="processor time for each case")
    parser.add_argument("--out", type=Path, default=Path("results/pathfinder.json"))
    arguments = parser.parse_args()
    rows = [measure(*case, arguments.seconds) for case in CASES]
    table = Table("side", "dashes", "per s and core", "kept", "lit", "distance", "discs", "light")
    for row in rows:
        table.add_row(
            str(row["resolution"]),
            str(row["contour_length"]),
            f"{row['pictures_per_second_and_core']:.0f}",
            f"{row['share_of_pairs_kept']:.2f}",
            f"{row['share_of_pixels_lit']:.3f}",
            f"{row['accuracy_of_disc_distance']:.3f}",
            f"{row['accuracy_of_disc_positions']:.3f}",
            f"{row['accuracy_of_brightness']:.3f}",
        )
    Console().print(table)
    report = {
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "cases": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
