"""Accuracy of runs in half precision beside runs in single, over a few seeds.

    .venv/bin/python benchmarks/precision.py --data-dir FOLDER [--quick]

Each job is `scripts/train.py` with `--precision float32` and with `--precision bf16`, on the same
seeds, shrinks included. Writes `results/precision.json` and `.md`: the test measure
of every run, and the difference of the means beside what seeds make of it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import table, write

ROOT = Path(__file__).parents[1]
JOBS = [
    # model, task, steps, the measure that counts
    ("lru", "digits", 600, "accuracy"),
    ("s5", "digits", 600, "accuracy"),
    ("lru", "smnist", 1500, "accuracy"),
    ("mamba", "charlm", 400, "bits_per_character"),
]
PRECISIONS = ("float32", "bf16")


def run(
    model: str,
    task: str,
    steps: int,
    seed: int,
    precision: str,
    folder: Path,
    data_dir: Path | None,
) -> dict:
    """The summary of one run of the training script."""
    out = folder / f"{model}-{task}-{precision}-{seed}"
    options = {"model": model, "task": task, "steps": steps, "seed": seed, "precision": precision}
    options["compression.mode"] = "tolerance"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--out", str(out)]
    command += [f"--{name}={value}" for name, value in options.items()]
    if task != "digits":
        command.append(f"--data-dir={data_dir and data_dir / task}")
    if not (out / "summary.json").exists():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "summary.json").read_text())


def row(job: tuple[str, str, int, str], found: dict[str, list[dict]]) -> dict[str, Any]:
    """The measure of every run of a job, by its precision."""
    model, task, steps, key = job
    values = {name: [s["test"][key] for s in summaries] for name, summaries in found.items()}
    states = {
        name: [layer["after"] for s in summaries for layer in s["layers"]]
        for name, summaries in found.items()
    }
    return {"model": model, "task": task, "steps": steps, "measure": key} | {
        "values": values,
        "states": states,
    }


def shown(row: dict[str, Any]) -> list[str]:
    """The cells of a row of the table."""
    percent = 100 if row["measure"] == "accuracy" else 1
    cells = [row["model"], row["task"], str(row["steps"]), row["measure"].replace("_", " ")]
    means = {}
    for name in PRECISIONS:
        values = [percent * v for v in row["values"][name]]
        means[name] = statistics.mean(values)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{means[name]:.2f} ± {spread:.2f}")
    cells.append(f"{means['bf16'] - means['float32']:+.2f}")
    cells.append(" / ".join(f"{statistics.mean(row['states'][name]):.1f}" for name in PRECISIONS))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, help="folder with folders `smnist` and `charlm`")
    parser.add_argument("--quick", action="store_true", help="few steps, nothing is written")
    parser.add_argument("--runs", type=Path, help="keep the run directories here, and reuse them")
    given = parser.parse_args()
    if given.data_dir is None and not given.quick:
        parser.error("--data-dir must be given, for the tasks smnist and charlm")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.runs or Path(temporary)
        for model, task, steps, key in JOBS:
            if given.quick and task != "digits":
                continue
            steps = 40 if given.quick else steps
            found = {
                name: [
                    run(model, task, steps, seed, name, folder, given.data_dir)
                    for seed in range(1 if given.quick else given.seeds)
                ]
                for name in PRECISIONS
            }
            rows.append(row((model, task, steps, key), found))
    lines = [
        "Test measures, mean ± deviation over seeds; the states of a layer are those after the "
        "shrinks, in single / in half precision.",
        "",
        *table(
            ["model", "task", "steps", "measure", *PRECISIONS, "difference", "states"],
            [shown(each) for each in rows],
        ),
    ]
    if given.quick:
        print("\n".join(lines))
    else:
        write("precision", {"rows": rows}, lines)


if __name__ == "__main__":
    main()
