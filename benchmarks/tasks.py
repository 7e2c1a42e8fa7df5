"""How fast the tasks are made that need no files, and what ListOps made in full size looks like.

    python benchmarks/tasks.py [--authors FOLDER]

Prepares each task once in an empty folder: makes it, writes it and reads it back, as the first run
on it does, in one process. Rates are samples per second of processor time, so other work on the
machine matters little; a run makes ListOps and Pathfinder on all cores. ListOps is made in full,
96 000 + 2 000 + 2 000 expressions, and compared with the original authors' file `test_d20s.tsv.gz`
in `--authors`, whose expressions are shorter and have fewer arguments. Writes `results/data.json`
and `results/data.md`.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from harness import table, write

from data import (
    AANConfig,
    ListOpsConfig,
    PathfinderConfig,
    PathXConfig,
    PendulumConfig,
    Task,
    load_task,
)
from data.builtin.listops.tokens import CLOSE, MIN, VOCABULARY, ZERO, read_tsv

AUTHORS = Path(__file__).parents[2] / "shared" / "data" / "listops"


@dataclass(frozen=True)
class Case:
    """A task as it is measured, and how many samples of it there are in full size."""

    what: str
    task: str
    config: Any
    full: int


CASES = (
    Case("ListOps, 500 to 2000 tokens", "listops", ListOpsConfig(workers=1), 100_000),
    Case(
        "Pathfinder 16x16, 3 dashes (small)",
        "pathfinder",
        PathfinderConfig(resolution=16, contour_length=3, workers=1),
        46_000,
    ),
    Case(
        "Pathfinder 32x32, 14 dashes",
        "pathfinder",
        PathfinderConfig(train=8_000, workers=1),
        200_000,
    ),
    Case(
        "Path-X 128x128, 14 dashes",
        "pathx",
        PathXConfig(train=2_000, validation=100, test=100, workers=1),
        200_000,
    ),
    Case("pendulum, 50 pictures", "pendulum", PendulumConfig(), 4_000),
    Case("AAN stand-in, 2 x 4000 bytes", "aan", AANConfig(source="generated"), 5_500),
)


def measure(case: Case, cache_dir: Path) -> tuple[dict[str, Any], Task]:
    wall, start = time.perf_counter(), time.process_time()
    task = load_task(case.task, case.config, cache_dir=cache_dir)
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    samples = sum(map(len, task.splits.values()))
    return {
        "what": case.what,
        "samples": samples,
        "processor_seconds": seconds,
        "seconds": wall,
        "per_second_and_core": samples / seconds,
        "full": case.full,
        "full_core_minutes": case.full / (samples / seconds) / 60,
        "bytes": sum(path.stat().st_size for path in cache_dir.rglob("*") if path.is_file()),
        "baselines": dict(task.baselines),
    }, task


def expressions_of(task: Task) -> Iterable[tuple[np.ndarray, int]]:
    """The tokens, without the end, and the values of all splits."""
    for split in task.splits.values():
        assert split.lengths is not None
        for row, length, label in zip(split.inputs, split.lengths, split.labels, strict=True):
            yield row[: length - 1], int(label)


def statistics(expressions: Iterable[tuple[np.ndarray, int]]) -> dict[str, Any]:
    """Lengths, shares of the symbols and of the values of ListOps expressions."""
    lengths, labels, depths = [], [], []
    symbols = np.zeros(len(VOCABULARY), np.int64)
    for tokens, label in expressions:
        opens = (tokens >= MIN) & (tokens < CLOSE)
        depths.append(int(np.cumsum(opens.astype(int) - (tokens == CLOSE)).max()))
        lengths.append(len(tokens))
        labels.append(label)
        symbols += np.bincount(tokens, minlength=len(VOCABULARY))
    operators, digits = symbols[MIN:CLOSE], symbols[ZERO:MIN]
    at = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
    edges = np.linspace(0, 2000, 17)
    return {
        "expressions": len(lengths),
        "length_quantiles": dict(zip(map(str, at), np.quantile(lengths, at), strict=True)),
        "length_mean": float(np.mean(lengths)),
        "length_histogram": {
            f"{low:.0f}-{high:.0f}": int(count)
            for low, high, count in zip(
                edges[:-1], edges[1:], np.histogram(lengths, edges)[0], strict=True
            )
        },
        "operator_shares": shares(VOCABULARY[MIN:CLOSE], operators),
        "digit_shares": shares(VOCABULARY[ZERO:MIN], digits),
        # every digit and operator but the outermost is an argument
        "mean_arguments": float((digits.sum() + operators.sum() - len(lengths)) / operators.sum()),
        "operators_open_at_most": int(np.max(depths)),
        "operators_open_mean": float(np.mean(depths)),
        "label_shares": (np.bincount(labels, minlength=10) / len(labels)).tolist(),
    }


def shares(names: Iterable[str], counts: np.ndarray) -> dict[str, float]:
    return dict(zip(names, counts / counts.sum(), strict=True))


def comparison(columns: dict[str, dict[str, Any]]) -> list[str]:
    """A table of statistics, a column for each set of expressions."""

    def row(name: str, cell) -> list[str]:
        return [name, *(cell(each) for each in columns.values())]

    rows = [
        row("expressions", lambda s: f"{s['expressions']}"),
        row(
            "tokens: least, median, most",
            lambda s: " ".join(f"{s['length_quantiles'][q]:.0f}" for q in ("0", "0.5", "1")),
        ),
        row(
            "tokens: 5 %, 25 %, 75 %, 95 %",
            lambda s: " ".join(
                f"{s['length_quantiles'][q]:.0f}" for q in ("0.05", "0.25", "0.75", "0.95")
            ),
        ),
        row("arguments of an operator, mean", lambda s: f"{s['mean_arguments']:.2f}"),
        row(
            "operators open at once: mean, most",
            lambda s: f"{s['operators_open_mean']:.1f} {s['operators_open_at_most']}",
        ),
        *(
            row(
                f"share of {name}",
                lambda s, n=name: f"{s['operator_shares'][n]:.4f}",
            )
            for name in VOCABULARY[MIN:CLOSE]
        ),
        row(
            "share of a digit among digits: least, most",
            lambda s: " ".join(f"{f(s['digit_shares'].values()):.4f}" for f in (min, max)),
        ),
        *(
            row(f"share of value {value}", lambda s, v=value: f"{s['label_shares'][v]:.4f}")
            for value in range(10)
        ),
    ]
    return table(["ListOps", *columns], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the making of the tasks without files.")
    parser.add_argument("--authors", type=Path, default=AUTHORS, help="folder of test_d20s.tsv.gz")
    path = parser.parse_args().authors / "test_d20s.tsv.gz"
    measured, columns = [], {}
    for case in CASES:
        with TemporaryDirectory() as folder:
            found, task = measure(case, Path(folder))
            measured.append(found)
            if case.task == "listops":
                columns["made here"] = statistics(expressions_of(task))
    if path.is_file():
        columns["authors' test_d20s"] = statistics(read_tsv(path))
    rows = [
        [
            each["what"],
            each["samples"],
            f"{each['processor_seconds']:.1f}",
            f"{each['per_second_and_core']:,.0f}",
            f"{each['bytes'] / 1e6:.0f}",
            f"{each['full']:,}",
            f"{each['full_core_minutes']:.1f}",
        ]
        for each in measured
    ]
    titles = ["task", "samples", "processor s", "per s and core", "MB", "in full", "core minutes"]
    note = (
        "Made, written and read back in one process. In full: Pathfinder and Path-X as large as "
        "the official sets, the others as by default; core minutes by the rate measured, in which "
        "Pathfinder has the trial draws that balance the distances of its discs."
    )
    write(
        "data",
        {"speed": measured, "listops": columns},
        [*table(titles, rows), "", note, "", *comparison(columns)],
        made_by="tasks",
    )


if __name__ == "__main__":
    main()
