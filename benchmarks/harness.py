"""Shared parts of the benchmarks: alternating timings in one process, agreement, and result
files."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from training.reporting.environment import describe_environment
from training.run.memory import keep_freed_memory

keep_freed_memory()

RESULTS = Path(__file__).parents[1] / "results"

PAPER = [
    # batch, L, H, N: the paper's settings and their sizes after shrinks
    (50, 784, 8, 256),
    (50, 784, 8, 28),
    (4, 1024, 128, 256),
    (4, 1024, 128, 82),
    (2, 1024, 512, 384),
    (2, 1024, 512, 93),
    (4, 4096, 256, 192),
]
"""Sizes of a layer and its data."""

TURN = 0.1
"""Seconds that a job is measured for at a time."""


def alternate(
    jobs: Mapping[Any, Callable[[], Any]], repeats: int, turn: float = TURN
) -> dict[Any, dict[str, float]]:
    """Median, lower and upper quartile of each job's seconds, the jobs taking turns.

    A turn is one call that is not measured, since memory that another job has freed must be
    allocated again, and then as many as fill `turn` seconds, of which the mean is taken.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in jobs}
    calls = {}
    for name, job in jobs.items():
        jax.block_until_ready(job())
        calls[name] = max(1, round(turn / _seconds(job, 1)))
    for _ in range(repeats):
        for name, job in jobs.items():
            jax.block_until_ready(job())
            seconds[name].append(_seconds(job, calls[name]))
    return {
        name: dict(zip(("low", "median", "high"), np.quantile(s, (0.25, 0.5, 0.75)), strict=True))
        for name, s in seconds.items()
    }


def _seconds(job: Callable[[], Any], calls: int) -> float:
    """Mean seconds of a call. On a CPU each call is waited for; on a GPU the next ones are
    queued."""
    start, result = time.perf_counter(), None
    for _ in range(calls):
        result = job()
        if jax.default_backend() == "cpu":
            jax.block_until_ready(result)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two trees, relative to the largest entry of each array."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
    return worst


def temporary_mib(compiled: Any) -> float:
    """Memory that a compiled program takes besides its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def write(name: str, content: dict[str, Any], lines: list[str], made_by: str | None = None) -> None:
    """`results/name.json` with versions and hardware, and `results/name.md`; prints the latter.

    `content` that was measured before has its own "environment" and "load_average".
    """
    now = {"environment": describe_environment(), "load_average": os.getloadavg()[0]}
    content = now | content
    environment = content["environment"]
    text = "\n".join(
        [
            *lines,
            "",
            f"{environment['processor']}, {environment['cores']} cores (load average "
            f"{content['load_average']:.1f}), {', '.join(environment['devices'])}, jax "
            f"{environment['versions']['jax']}. Made by `benchmarks/{made_by or name}.py`.",
            "",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def milliseconds(seconds: Mapping[str, float], digits: int = 1) -> str:
    """A median and its quartiles, of `alternate`."""
    low, median, high = (f"{1e3 * seconds[name]:.{digits}f}" for name in ("low", "median", "high"))
    return f"{median} ({low}-{high})"


def table(columns: list[str], rows: list[list[Any]]) -> list[str]:
    """A Markdown table."""
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(str(cell) for cell in row) + " |" for row in cells]
