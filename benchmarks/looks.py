"""What the looks and cuts of mode `auto` cost: whole runs by the small presets.

    python benchmarks/looks.py --data-dir FOLDER [--runs runs/looks] [--seed 0] [--warm]

FOLDER holds a folder for each task with official files (`smnist`, `charlm`). Each run is a process
of its own. A first run on each task fills the compilation cache and is not counted; with `--warm`,
the cache has it already. Writes `results/looks.json` (with versions and hardware) and
`results/looks.md`.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import table, write

SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"
RUNS = (
    ("lru", "digits"),
    ("s5", "smnist"),
    ("lru", "listops"),
    ("mamba", "charlm"),
    ("s5", "pathfinder"),
)


def seconds(model: str, task: str, seed: int, data: Path, out: Path) -> dict[str, Any]:
    """What a run's summary says of its time and its states."""
    shutil.rmtree(out, ignore_errors=True)
    folder = ["--data-dir", data / task] if (data / task).exists() else []
    given = ["--model", model, "--task", task, "--seed", seed, *folder]
    command = [sys.executable, SCRIPT, *map(str, given), "--compression.mode", "auto"]
    command += ["--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    run = json.loads((out / "summary.json").read_text())
    states = [sum(layer[when] for layer in run["layers"]) for when in ("before", "after")]
    return {"seconds": run["seconds"], "states": states}


def row(pair: str, found: dict[str, Any]) -> list[str]:
    took, (before, after) = found["seconds"], found["states"]
    share = f"{took['shrink'] / took['total']:.1%}"
    return [pair, f"{before} → {after}", f"{took['total']:.1f}", f"{took['shrink']:.1f}", share]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the tasks' files")
    parser.add_argument("--runs", type=Path, default=Path("runs/looks"), help="run directories")
    parser.add_argument("--seed", type=int, default=0, help="of the runs that count")
    parser.add_argument("--warm", action="store_true", help="the compilation cache is filled")
    options = parser.parse_args()
    measured: dict[str, Any] = {}
    for model, task in RUNS:
        first = () if options.warm else (options.seed + 1,)  # fills the compilation cache
        for seed in (*first, options.seed):
            out = options.runs / f"{model}-{task}"
            measured[f"{model} {task}"] = seconds(model, task, seed, options.data_dir, out)
    columns = ["run", "states", "total, s", "looks and cuts, s", "share"]
    lines = [
        f"Whole runs by the small presets in mode `auto`, one process each (seed {options.seed}). "
        "Looks and cuts are the time in which training stands still for them.",
        "",
        *table(columns, [row(pair, found) for pair, found in measured.items()]),
    ]
    write("looks", {"runs": measured}, lines)


if __name__ == "__main__":
    main()
