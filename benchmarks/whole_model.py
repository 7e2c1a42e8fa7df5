"""How near the estimate and the bound of `whole_model` come to what cuts do to a trained model.

    python benchmarks/whole_model.py --runs runs/A runs/B [--cuts 100]

Of each finished run, layers are cut one at a time to random ranks, and the logits of test sequences
measured. Writes results/whole_model.md.
"""

import argparse
import json
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from compress import Data, Rank, WhiteNoise, plan, whole_model
from compress.model.layers import layers_of, replace_layers
from data import default_cache_dir, load_task
from training import load_run
from training.reporting.events import write_atomically

RESULTS = Path(__file__).parents[1] / "results"
SEQUENCES = 64


@eqx.filter_jit
def logits(model, x):
    return jax.vmap(lambda x: eqx.nn.inference_mode(model[0])(x, model[1])[0])(x)


def measure(folder: Path, cuts: int) -> dict:
    """Ratios of estimate and bound to what was measured, over random cuts of the run's model."""
    run = load_run(folder)
    config = run.config
    task = load_task(
        config.task,
        config.data,
        data_dir=config.data_dir,
        cache_dir=config.cache_dir or default_cache_dir(),
    )
    x = task.splits["test"].take(np.arange(SEQUENCES)).inputs
    model, rng = (run.model, run.state), np.random.default_rng(0)
    layers, before = layers_of(model), logits((run.model, run.state), x)
    estimates, bounds = [], []
    while len(estimates) < cuts:
        most = min(layer.d_state for _, layer in layers)
        rank = int(rng.integers(max(1, most // 4), most))
        method = Data(batch=x) if rng.integers(2) else WhiteNoise()
        told = whole_model(plan(model, policy=Rank(rank), method=method), model, x)
        for (keys, _), row in zip(layers, told.layers, strict=True):
            if row.cut is None or len(estimates) >= cuts:
                continue
            after = logits(replace_layers(model, {keys: row.cut.after}), x)
            moved = np.linalg.norm(after - before, axis=-1)
            estimates.append(row.change / float(np.sqrt(np.mean(moved**2))))
            bounds.append(row.change_bound / float(np.max(moved)))
    return {
        "run": f"{config.model} on {config.task}",
        "cuts": len(estimates),
        "within_two": float(np.mean([0.5 <= ratio <= 2 for ratio in estimates])),
        "estimate": np.quantile(estimates, (0.1, 0.5, 0.9)).tolist(),
        "bound_holds": bool(np.min(bounds) >= 1 - 1e-6),
        "bound": np.quantile(bounds, (0, 0.5, 1)).tolist(),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--cuts", type=int, default=100)
    options = parser.parse_args()
    found = [measure(folder, options.cuts) for folder in options.runs]
    lines = [
        f"Layers of trained models cut one at a time to random ranks, by data or white noise; the "
        f"change of the logits of {SEQUENCES} test sequences, estimate and bound over measured.",
        "",
        "| model | cuts | estimate within a factor of 2 | estimate, 10 %, median, 90 % "
        "| bound holds | bound, least, median, most |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        estimate = ", ".join(f"{x:.2f}" for x in row["estimate"])
        bound = ", ".join(f"{x:.3g}" for x in row["bound"])
        holds = "yes" if row["bound_holds"] else "no"
        lines.append(
            f"| {row['run']} | {row['cuts']} | {row['within_two']:.0%} | {estimate} | {holds} "
            f"| {bound} |"
        )
    lines += ["", "Made by `benchmarks/whole_model.py`.", ""]
    write_atomically(RESULTS / "whole_model.md", "\n".join(lines))
    write_atomically(RESULTS / "whole_model.json", json.dumps(found, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
