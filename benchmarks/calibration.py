"""The use of calibration data: number of sequences, number of samples, refit, refinement.

    python benchmarks/calibration.py                                # digits
    python benchmarks/calibration.py --data-dir FOLDER --task smnist

Trains the LRU classifiers of `benchmarks/reduction.py` and measures the rise of the loss right
after all layers are cut to n / 4 and n / 8 states,

- by the number of calibration sequences;
- with the moments taken over so many samples (`compress.linear.data_gramians.sample_count`);
- with C and D refitted after cuts by white noise and by data;
- with every parameter of a cut layer refined after that, by Adam steps on the squared difference
  of its outputs to the full layer's on the calibration data (the data-optimal reduction that
  Sakamoto & Sato 2025, arXiv 2507.10078, train towards).

Writes `results/calibration_TASK.json` (every number, versions, hardware) and `.md`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from reduction import CALIBRATION, ROOT, STATES, first, loss_of, start

from compress import Data, Rank, compress, layer_inputs
from compress.linear import data_gramians
from compress.model.layers import layers_of, path_name, replace_layers
from data import load_task
from training.reporting.environment import describe_environment
from training.run.compilation import use_compilation_cache
from training.run.interrupt import Interrupt
from training.run.loop import Run

RANKS = (STATES // 4, STATES // 8)
SEQUENCES = (16, 32, 64, 128, 256)
SAMPLES = (512, 2048, 8192, 32_768, 1_000_000)
REFINEMENT_STEPS = 100
LEARNING_RATE = 1e-3

ALONE = {"states": False, "gradients": False}
WAYS = {
    "paper's form": {"form": "complex", **ALONE},
    "paper's form, refitted": {"form": "complex", "refit": True, **ALONE},
    "real form": ALONE,
    "real form, refitted": {"refit": True, **ALONE},
    "data and gradients": {},
    "data and gradients, refitted": {"refit": True},
}
REFINED = ("paper's form, refitted", "data and gradients, refitted")


@eqx.filter_jit
def refined(small, full, u):
    """`small` after some Adam steps towards the outputs of `full` on `u` [b L H]."""
    params, static = eqx.partition(small, eqx.is_inexact_array)
    wanted = jax.vmap(full)(u)
    optimizer = optax.adam(LEARNING_RATE)

    def loss(params):
        return jnp.mean((jax.vmap(eqx.combine(params, static))(u) - wanted) ** 2)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=REFINEMENT_STEPS)
    return eqx.combine(params, static)


def trial(run: Run, seed: int) -> list[dict]:
    model, norm_state = run.model, run.state.norm_state
    batch = run.session.task.splits["train"].take(np.arange(CALIBRATION)).inputs
    split = first(run.session.task.splits["validation"], 2000)
    before = loss_of(run, model, split)
    inputs = layer_inputs((model, norm_state), batch)
    rows = []

    def note(rank: int, way: str, cut, seconds: float, **how: int) -> None:
        rise = loss_of(run, cut, split) - before
        row = {"seed": seed, "rank": rank, "way": way, **how}
        rows.append({**row, "loss_before": before, "rise": rise, "seconds": seconds})

    def cut_to(rank: int, how: dict, batch=batch):
        began = time.perf_counter()
        (cut, _), _ = compress((model, norm_state), policy=Rank(rank), method=Data(batch, **how))
        return cut, time.perf_counter() - began

    enough = data_gramians.sample_count
    usual = enough(max(layer.d_state for _, layer in layers_of(model)))
    for rank in RANKS:
        for way, how in WAYS.items():
            cut, seconds = cut_to(rank, how)
            note(rank, way, cut, seconds, samples=usual)
            if way not in REFINED:
                continue
            began = time.perf_counter()
            full, small = dict(layers_of(model)), dict(layers_of(cut))
            better = {
                keys: refined(small[keys], full[keys], inputs[f"[0].{path_name(keys)}"])
                for keys in full
            }
            cut = replace_layers(cut, better)
            note(rank, f"{way}, refined", cut, time.perf_counter() - began, samples=usual)
        for sequences in SEQUENCES:
            few = run.session.task.splits["train"].take(np.arange(sequences)).inputs
            cut, seconds = cut_to(rank, {}, few)
            note(rank, "sequences", cut, seconds, sequences=sequences)
        for samples in SAMPLES:
            data_gramians.sample_count = lambda n, samples=samples: samples
            cut, seconds = cut_to(rank, {})
            note(rank, "samples", cut, seconds, samples=samples)
        data_gramians.sample_count = enough
    return rows


def table(rows: list[dict], label: str, key) -> list[str]:
    lines = [
        f"| states | {label} | rise of the loss, each seed | mean |",
        "|" + "---|" * 4,
    ]
    for rank in RANKS:
        groups: dict = {}
        for row in rows:
            if row["rank"] == rank:
                groups.setdefault(key(row), []).append(row)
        for name, group in groups.items():
            rises = [row["rise"] for row in group]
            each = ", ".join(f"{x:.4f}" for x in rises)
            mean = statistics.mean(rises)
            lines.append(f"| {STATES} -> {rank} | {name} | {each} | {mean:.4f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=("digits", "smnist"), default="digits")
    parser.add_argument("--data-dir", type=Path, help="MNIST's files")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    use_compilation_cache(None)
    task = load_task(options.task, data_dir=options.data_dir)
    rows: list[dict] = []
    for seed in range(options.seeds):
        run = start(task, options.task, seed)
        run.train_to(run.config.steps, Interrupt())
        rows += trial(run, seed)
        content = {"environment": describe_environment(), "rows": rows}
        path = ROOT / "results" / f"calibration_{options.task}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        of_sequences, of_samples = (
            [row for row in rows if row["way"] == way] for way in ("sequences", "samples")
        )
        of_ways = [row for row in rows if row["way"] not in ("sequences", "samples")]
        total = CALIBRATION * task.length
        lines = [
            f"Two-block LRU classifiers on {options.task}, {STATES} states a layer, "
            f"{CALIBRATION} calibration sequences of {task.length} samples ({total} in all); "
            "by `benchmarks/calibration.py`.",
            "",
            *table(of_ways, "cut by", lambda row: row["way"]),
            "",
            f"Refined: {REFINEMENT_STEPS} Adam steps on all parameters of each layer.",
            "",
            "By data and gradients, with fewer calibration sequences:",
            "",
            *table(of_sequences, "sequences", lambda row: row["sequences"]),
            "",
            "By data and gradients, with the moments over a part of the samples:",
            "",
            *table(of_samples, "samples, at most", lambda row: row["samples"]),
        ]
        path.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
