"""The small-scale runs over several seeds: accuracy, states, speed before and after the shrinks.

    python benchmarks/main_job.py --seeds 3

Runs `scripts/train.py` for each model, task and seed below, one after the other, with and without
compression, and writes `results/main_job.json` (every run's summary, with versions and hardware)
and `results/main_job.md` (the table).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from training.reporting.environment import describe_environment

ROOT = Path(__file__).parents[1]
JOBS = [("s5", "pathfinder"), ("lru", "pathfinder"), ("lru", "digits"), ("s5", "digits")]


def run(model: str, task: str, seed: int, mode: str, folder: Path) -> dict:
    """The summary of one run of the training script."""
    out = folder / f"{model}-{task}-{mode}-{seed}"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--model", model, "--task", task]
    command += ["--seed", str(seed), "--out", str(out), "--compression.mode", mode]
    if not (out / "summary.json").exists():
        subprocess.run(command, check=True)
    return json.loads((out / "summary.json").read_text())


def row(model: str, task: str, mode: str, summaries: list[dict]) -> str:
    """One line of the table."""
    accuracy = [100 * s["test"]["accuracy"] for s in summaries]
    spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
    before = summaries[0]["layers"][0]["before"]
    after = [layer["after"] for s in summaries for layer in s["layers"]]
    total = statistics.mean(s["seconds"]["total"] for s in summaries)
    faster = statistics.mean(
        s["phases"][-1]["steps_per_second"] / s["phases"][0]["steps_per_second"] for s in summaries
    )
    baselines = {
        k: statistics.mean(s["baselines"][k] for s in summaries) for k in summaries[0]["baselines"]
    }
    trivial = max(baselines, key=lambda name: baselines[name])
    each = ", ".join(f"{a:.1f}" for a in accuracy)
    kept = f"{before} -> {statistics.mean(after):.1f}" if mode != "none" else f"{before}"
    return (
        f"| {model} | {task} | {kept} | {statistics.mean(accuracy):.1f} ± {spread:.1f} ({each}) "
        f"| {100 * baselines[trivial]:.1f} ({trivial}) | {faster:.2f} | {total:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", nargs="*", default=[f"{m}-{t}" for m, t in JOBS])
    parser.add_argument("--modes", nargs="*", default=["tolerance", "none"])
    parser.add_argument("--runs", type=Path, help="keep the run directories here, and reuse them")
    options = parser.parse_args()
    table = [
        "| model | task | states per layer | test accuracy, % | best trivial baseline, % "
        "| steps/s, last phase over first | wall time, s |",
        "|---|---|---|---|---|---|---|",
    ]
    runs = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.runs or Path(temporary)
        for model, task in JOBS:
            for mode in options.modes:
                if f"{model}-{task}" in options.jobs:
                    done = [run(model, task, k, mode, folder) for k in range(options.seeds)]
                    runs += [{"mode": mode, **summary} for summary in done]
                    table.append(row(model, task, mode, done))
    environment = describe_environment()
    note = (
        f"Mean ± standard deviation over {options.seeds} seeds (each in brackets). "
        f"{environment['processor']}, {environment['cores']} cores, jax "
        f"{environment['versions']['jax']}. Made by `benchmarks/main_job.py`."
    )
    results = ROOT / "results"
    (results / "main_job.md").write_text("\n".join([*table, "", note, ""]))
    content = {"environment": environment, "runs": runs}
    (results / "main_job.json").write_text(json.dumps(content, indent=1) + "\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
