"""Runs on three public data sets, with the settings that follow from their sizes.

    python benchmarks/own_data.py --data FOLDER [--runs runs/own-data] [--seeds 1]

FOLDER holds

- `JapaneseVowels_TRAIN.ts` and `JapaneseVowels_TEST.ts`, of the UEA archive
  (https://www.timeseriesclassification.com);
- `ETTh1.csv`, hourly loads and oil temperature of a transformer
  (https://github.com/zhouhaoyi/ETDataset);
- `recordings/`, spoken digits, the class at the beginning of each name
  (https://github.com/Jakobovski/free-spoken-digit-dataset).

Each set is trained on by `scripts/train.py --task`, as nothing else says, without cuts, with those
at a tolerance of 0.01 and in mode auto, the default. What has run is not run again. Writes
`results/own_data.json` (with versions and hardware) and `results/own_data.md`.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import table, write

SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"

SETS = {
    "JapaneseVowels": ("JapaneseVowels_TRAIN.ts", "logistic regression"),
    "spoken digits": ("recordings", "logistic regression"),
    "ETTh1": ("ETTh1.csv", "ridge"),
}
"""The file or folder, and the baseline that counts."""

MODES = {
    "no cut": ("--compression.mode", "none"),
    "tolerance": ("--compression.mode", "tolerance"),
    "auto": ("--compression.mode", "auto"),
}
"""Options beside the task."""


def summary(task: Path, folder: Path, options: tuple[str, ...], seed: int) -> dict[str, Any]:
    """What a run measured. It is begun, or goes on, if it has not ended."""
    end = folder / "summary.json"
    if not end.exists():
        begun = (folder / "config.yaml").exists()
        given = ["--resume", folder] if begun else ["--task", task, "--out", folder, *options]
        seeded = [] if begun else ["--seed", seed]
        subprocess.run([sys.executable, SCRIPT, *map(str, [*given, *seeded])], check=True)
    return json.loads(end.read_text())


def shown(values: list[float], share: bool) -> str:
    """Mean, and deviation where there are several."""
    scale, form, unit = (100, "{:.2f}", " %") if share else (1, "{:.4f}", "")
    text = form.format(scale * statistics.mean(values))
    if len(values) > 1:
        text += " ± " + form.format(scale * statistics.stdev(values))
    return text + unit


def row(name: str, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    share = "accuracy" in found["tolerance"][0]["test"]
    key, baseline = "accuracy" if share else "mse", SETS[name][1]
    cells = [name, "accuracy" if share else "MSE"]
    cells.append(shown([found["tolerance"][0]["baselines"][baseline]], share))
    for runs in found.values():
        cells.append(shown([run["test"][key] for run in runs], share))
    layers = {mode: [run["layers"] for run in runs] for mode, runs in found.items()}
    before = sum(layer["before"] for layer in layers["no cut"][0])
    after = [
        "/".join(str(sum(layer["after"] for layer in run)) for run in layers[mode])
        for mode in ("tolerance", "auto")
    ]
    return [*cells, f"{before} → {after[0]}", f"{before} → {after[1]}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the three sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/own-data"), help="run directories")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind")
    options = parser.parse_args()
    measured: dict[str, Any] = {
        name: {
            mode: [
                summary(
                    options.data / file,
                    options.runs / f"{file.split('.')[0]}-{mode.replace(' ', '-')}-seed{seed}",
                    given,
                    seed,
                )
                for seed in range(options.seeds)
            ]
            for mode, given in MODES.items()
        }
        for name, (file, _) in SETS.items()
    }
    columns = ["set", "test", "linear baseline", *MODES, "states, tolerance", "states, auto"]
    rows = [row(name, found) for name, found in measured.items()]
    lines = [
        "Three public data sets with the settings that follow from their sizes (s5, seed 0"
        + (f" to {options.seeds - 1}" if options.seeds > 1 else "")
        + "). Measures on the test split after the last step. The linear baseline is logistic "
        "regression, or ridge regression on the whole window.",
        "",
        *table(columns, rows),
    ]
    kept = ("test", "best", "baselines", "layers", "total_steps", "seed")
    content = {
        name: {
            mode: [{key: run[key] for key in kept} for run in runs] for mode, runs in found.items()
        }
        for name, found in measured.items()
    }
    write("own_data", {"sets": content}, lines)


if __name__ == "__main__":
    main()
