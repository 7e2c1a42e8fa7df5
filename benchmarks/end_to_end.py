"""Whole runs with and without compression: the time that shrinking saves, with all costs.

    python benchmarks/end_to_end.py [--data-dir FOLDER] [--models s5 lru] [--repeats 3]
    python benchmarks/end_to_end.py --mode tolerance
    python benchmarks/end_to_end.py --quick     # the digits, 300 steps, once; writes no results

Runs `scripts/train.py` with the small preset, once with compression in mode `auto` (or another) and
once with `--compression.mode none`, in turns: same steps, same seed, each run a process of its own.
Each kind has a compilation cache of its own, which is empty at the beginning; the first run of each
kind stands by itself in the table, and the medians are over the later ones. Wall time is the whole
process's, from start to report. Writes `results/end_to_end.json` (with versions and hardware) and
`results/end_to_end.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import table, write

from training.settings.presets import preset

ROOT = Path(__file__).parents[1]


def train(given: list[str], mode: str, folder: Path, cache: Path) -> dict[str, Any]:
    """One run of the script: the wall time of its process, and its summary's numbers."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *given]
    command += ["--compression.mode", mode, "--out", str(folder)]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "mode": mode,
        "wall": seconds,
        "seconds": summary["seconds"],
        "host_share": summary["host_share"],
        "steps_per_second": [phase["steps_per_second"] for phase in summary["phases"]],
        "d_state": [[layer["before"], layer["after"]] for layer in summary["layers"]],
        "parameters": [summary["parameters_before"], summary["parameters_after"]],
        "accuracy": summary["test"]["accuracy"],
        "loss": summary["test"]["loss"],
    }


def measure(given: list[str], modes: tuple[str, str], repeats: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for repeat in range(repeats + 1):
            for mode in modes if repeat % 2 == 0 else reversed(modes):
                folder = Path(place) / f"{mode}-{repeat}"
                row = train(given, mode, folder, Path(place) / f"compiled-{mode}")
                rows.append({"first": repeat == 0, **row})
                note = f"{' '.join(given[:2])}, {mode}, {repeat} of {repeats}: {row['wall']:.1f} s"
                print(note, file=sys.stderr, flush=True)
    return rows


def table_row(model: str, mode: str, runs: list[dict[str, Any]], whole: float) -> list[Any]:
    """The runs of one kind; `whole` is the median wall time of later runs without cuts."""
    first = next(r for r in runs if r["first"])
    later = [r for r in runs if not r["first"]]
    walls = [r["wall"] for r in later]
    before, after = (sum(sizes) for sizes in zip(*first["d_state"], strict=True))
    return [
        model,
        mode,
        f"{before} → {after}",
        f"{first['wall']:.1f}",
        f"{np.median(walls):.1f} ({min(walls):.1f} to {max(walls):.1f})",
        f"{whole / np.median(walls):.2f}",
        f"{np.median([r['seconds']['train'] for r in later]):.1f}",
        f"{np.median([r['host_share'] for r in later]):.0%}",
        f"{np.median([r['steps_per_second'][-1] for r in later]):.1f}",
        f"{np.median([r['accuracy'] for r in later]):.4f}",
    ]


COLUMNS = [
    "model",
    "compression",
    "states",
    "first run",
    "later runs, median (least to most)",
    "times faster",
    "steps alone",
    "neither training nor evaluation",
    "steps/s at the end",
    "test accuracy",
]


def report(content: dict[str, Any]) -> list[str]:
    """The table, in Markdown."""
    rows = []
    for model, runs in content["runs"].items():
        kinds = {mode: [r for r in runs if r["mode"] == mode] for mode in content["modes"]}
        whole = np.median([r["wall"] for r in kinds["none"] if not r["first"]])
        rows += [table_row(model, mode, of_kind, whole) for mode, of_kind in kinds.items()]
    return [
        f"{content['task']}, small presets, {content['steps']} steps, seed {content['seed']}: wall "
        "seconds from the start of the process to its report. One first run, with an empty "
        f"compilation cache, and {content['repeats']} more of each kind, in turns.",
        "",
        *table(COLUMNS, rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["s5", "lru"])
    parser.add_argument("--task", default="smnist")
    parser.add_argument("--mode", default="auto", help="how the runs are compressed")
    parser.add_argument("--data-dir", type=Path, help="folder with the task's official files")
    parser.add_argument("--steps", type=int, help="steps of a run (the preset's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="later runs of each kind")
    parser.add_argument("--quick", action="store_true", help="the digits, 300 steps, once")
    options = parser.parse_args()
    task = "digits" if options.quick else options.task
    repeats = 1 if options.quick else options.repeats
    models = options.models[:1] if options.quick else options.models
    steps = options.steps or (300 if options.quick else preset(models[0], task, "small").steps)
    given = ["--task", task, "--steps", str(steps), "--seed", str(options.seed)]
    given += [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
    modes = options.mode, "none"
    content = {
        "task": task,
        "steps": steps,
        "seed": options.seed,
        "repeats": repeats,
        "modes": modes,
        "runs": {name: measure(["--model", name, *given], modes, repeats) for name in models},
    }
    if options.quick:
        print("\n".join(report(content)))
    else:
        write("end_to_end", content, report(content))


if __name__ == "__main__":
    main()
