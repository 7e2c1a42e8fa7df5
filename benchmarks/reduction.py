"""The cost of a cut of a trained model, by Gramians, and the effect of carried moments after it.

    python benchmarks/reduction.py --data-dir FOLDER      # the folder with MNIST's files

Trains LRU classifiers on digits and, at full length, on sequential MNIST. Of each it measures

- the rise of the loss right after all layers are cut to n / 4 and n / 8 states: in the paper's
  form, the real form, H2-optimal, and by data, with and without gradients and the fit of C and D;
- the mean loss over the 50 steps after a cut to n / 4 at a tenth of the training, with the
  moments transported, sliced and reset, less that of 50 steps without a cut.

Writes `results/reduction.json` (every number, versions, hardware) and `results/reduction.md`.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from compress import Data, H2Optimal, Rank, WhiteNoise, compress
from compress.optimizer.carry import MODES
from data import Split, Task, load_task
from training.reporting.environment import describe_environment
from training.run.clock import Clock
from training.run.compilation import use_compilation_cache
from training.run.interrupt import Interrupt
from training.run.loop import Run
from training.settings.config import CompressionConfig, NetworkConfig
from training.settings.presets import preset

ROOT = Path(__file__).parents[1]
STATES = 128
CALIBRATION = 300
"""Training sequences that the Gramians are measured on."""
FOLLOWED = 50
"""Steps after a cut over which the loss is averaged."""

SETTINGS = {
    # steps, d_model, batch size
    "digits": (1500, 32, 50),
    "smnist": (2000, 16, 50),
}

WAYS = {
    "paper's form": lambda batch: WhiteNoise("complex"),
    "real form": lambda batch: WhiteNoise(),
    "H2-optimal": lambda batch: H2Optimal(),
    "data": lambda batch: Data(batch, gradients=False),
    "data, C and D refitted": lambda batch: Data(batch, gradients=False, refit=True),
    "data and gradients": lambda batch: Data(batch),
    "data and gradients, C and D refitted": lambda batch: Data(batch, refit=True),
}
"""From calibration data to the method."""


def start(task: Task, name: str, seed: int) -> Run:
    """A run of a model with two layers of `STATES` states, before its first step."""
    steps, d_model, batch_size = SETTINGS[name]
    config = preset("lru", name, "small")
    config = replace(
        config,
        seed=seed,
        steps=steps,
        batch_size=batch_size,
        layer=replace(config.layer, d_state=STATES),
        network=NetworkConfig(d_model=d_model, blocks=2, dropout=0.1),
        optimizer=replace(config.optimizer, learning_rate=4e-3, ssm_factor=0.5, weight_decay=0.05),
        compression=CompressionConfig(mode="none"),
    )
    return Run(config, task, Path(tempfile.mkdtemp()), Clock())


def loss_of(run: Run, model: eqx.Module, split: Split) -> float:
    """The loss of `model` instead of the run's own model."""
    own = run.state
    run.session.held.hold(own._replace(params=eqx.filter(model, eqx.is_array)))
    loss = run.session.measure(split)
    run.session.held.hold(own)
    return (loss if isinstance(loss, tuple) and len(loss) == 2 else loss.means())[0]


def first(split: Split, count: int) -> Split:
    return replace(split, inputs=split.inputs[:count], labels=split.labels[:count])


def cuts(run: Run) -> list[dict]:
    """The rise of the loss for every way and both ranks."""
    model, norm_state = run.model, run.state.norm_state
    batch = run.session.task.splits["train"].take(np.arange(CALIBRATION)).inputs
    split = first(run.session.task.splits["validation"], 2000)
    before = loss_of(run, model, split)
    rows = []
    for rank in (STATES // 4, STATES // 8):
        for way, make in WAYS.items():
            (small, _), _ = compress((model, norm_state), policy=Rank(rank), method=make(batch))
            rise = loss_of(run, small, split) - before
            rows.append({"rank": rank, "way": way, "loss_before": before, "rise": rise})
    return rows


def followed(run: Run, state, steps: int) -> float:
    """The mean training loss of so many steps from `state`, which is not used up."""
    losses, at = [], run.step
    run.session.held.hold(jax.tree.map(jnp.copy, state))
    run.session.reporter.sinks = [_Losses(losses)]
    run.train_to(at + steps, Interrupt())
    run.session.step, run.session.reporter.sinks = at, []
    return losses[0]


class _Losses:
    def __init__(self, losses: list[float]):
        self.losses = losses

    def write(self, event: dict) -> None:
        if event["event"] == "train":
            self.losses.append(event["loss"])

    def close(self) -> None:
        pass


def moments(run: Run) -> dict[str, float]:
    """The jump of the mean loss over the steps after a cut, by the handling of the moments."""
    state = jax.tree.map(jnp.copy, run.state)
    batch = run.session.task.splits["train"].take(np.arange(CALIBRATION)).inputs
    uncut = followed(run, state, FOLLOWED)
    run.session.held.hold(state)
    jumps = {}
    for mode in MODES:
        (small, _), opt_state = compress(
            (run.model, state.norm_state),
            state.opt_state,
            policy=Rank(STATES // 4),
            batch=batch,
            moments=mode,
        )
        cut = state._replace(params=eqx.filter(small, eqx.is_array), opt_state=opt_state)
        jumps[mode] = followed(run, cut, FOLLOWED) - uncut
        run.session.held.hold(state)
    return jumps


def trial(task: Task, name: str, seed: int, cut_too: bool) -> dict:
    run = start(task, name, seed)
    run.train_to(run.config.steps // 10, Interrupt())
    found = {"task": name, "seed": seed, "moments": moments(run)}
    if cut_too:
        run.train_to(run.config.steps, Interrupt())
        run.session.evaluate("test")
        found |= {"test": run.session.results["test"], "cuts": cuts(run)}
    return found


def tables(trials: list[dict]) -> str:
    lines = [
        f"Two-block LRU classifiers, {STATES} states a layer, by `benchmarks/reduction.py`.",
        "",
        "Rise of the validation loss right after all layers are cut (each seed; share of the "
        "paper's form in the mean over seeds):",
        "",
        "| task | states | Gramians | rise of the loss | share |",
        "|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(t["task"] for t in trials))
    for name in names:
        full = [t for t in trials if t["task"] == name and "cuts" in t]
        for rank in (STATES // 4, STATES // 8):
            rises = {
                way: [
                    row["rise"]
                    for t in full
                    for row in t["cuts"]
                    if (row["rank"], row["way"]) == (rank, way)
                ]
                for way in WAYS
            }
            paper = statistics.mean(rises["paper's form"])
            for way, rise in rises.items():
                each = ", ".join(f"{x:.4f}" for x in rise)
                share = statistics.mean(rise) / paper
                lines.append(f"| {name} | {STATES} -> {rank} | {way} | {each} | {share:.3f} |")
    lines += [
        "",
        f"Mean loss over the {FOLLOWED} steps after a cut to {STATES // 4} states at a tenth of "
        "the training, less that without a cut (mean over seeds ± standard deviation; each):",
        "",
        "| task | seeds | moments | jump | each |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        of_task = [t["moments"] for t in trials if t["task"] == name]
        for mode in MODES:
            jumps = [m[mode] for m in of_task]
            spread = statistics.stdev(jumps) if len(jumps) > 1 else 0.0
            each = ", ".join(f"{x:.4f}" for x in jumps)
            mean = statistics.mean(jumps)
            lines.append(f"| {name} | {len(jumps)} | {mode} | {mean:.4f} ± {spread:.4f} | {each} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="MNIST's files; without it digits alone")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the table of cuts")
    parser.add_argument("--moment-seeds", type=int, default=5)
    parser.add_argument("--resume", action="store_true", help="keep the trials made already")
    options = parser.parse_args()
    use_compilation_cache(None)
    path = ROOT / "results" / "reduction.json"
    environment = describe_environment()
    trials: list[dict] = json.loads(path.read_text())["trials"] if options.resume else []
    made = {(trial["task"], trial["seed"]) for trial in trials}
    for name in ("digits", "smnist"):
        if name == "smnist" and options.data_dir is None:
            continue
        task = load_task(name, data_dir=options.data_dir if name == "smnist" else None)
        for seed in range(max(options.seeds, options.moment_seeds)):
            if (name, seed) in made:
                continue
            found = trial(task, name, seed, seed < options.seeds)
            found["git_commit"] = environment["git_commit"]
            print(json.dumps(found), flush=True)
            trials.append(found)
            content = {"environment": environment, "trials": trials}
            path.write_text(json.dumps(content, indent=2) + "\n")
            (ROOT / "results" / "reduction.md").write_text(tables(trials))
    print(tables(trials))


if __name__ == "__main__":
    main()
