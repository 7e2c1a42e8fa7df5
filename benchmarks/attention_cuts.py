"""Ways to cut Gated DeltaNet, side by side on the same trained models, and cuts in training.

    python -m benchmarks.attention_cuts --part after
    python -m benchmarks.attention_cuts --part during
    python -m benchmarks.attention_cuts --part mamba2

Two layers of d_model 64 with two heads of 32 keys learn a text, and associative recall. `after`
cuts the finished models by every method of `benchmarks.attention_methods`, and measures the change
of loss and accuracy. `during` cuts at a tenth, and for recall also at half of the steps, with the
optimizer's state carried along, and compares with models that are never cut and models trained at
the small size from the start. `mamba2` does both to Mamba-2 with and without maps. The text is that
of the task `charlm`: its official file, or `--data-dir`. Parts add their results to
`results/attention_cuts.json`.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from compress import Data, Rank, compress
from compress.model.layers import layers_of, path_name, replace_layers
from compress.model.record import record
from data import CharLMConfig, MQARConfig, Task, load_task, train_batch
from training.model.objective import OBJECTIVES
from zoo import GatedDeltaNet, Mamba2, language_model

from .attention_methods import METHODS, Observed
from .harness import RESULTS, table, write

D_MODEL, HEADS, KEYS, BLOCKS = 64, 2, 32, 2
CALIBRATION, HELD_OUT = 32, 256
RANKS = (24, 16, 8)
CONFIGS = {
    "charlm": CharLMConfig(length=128),
    "mqar": MQARConfig(pairs=12, fewest=1, length=64, vocabulary=64, test=HELD_OUT),
}
STEPS = {"charlm": 800, "mqar": 2000}
BATCH = 32
RATE = 3e-3

LAYERS: Mapping[str, Callable[..., Any]] = {
    "gated_deltanet": lambda key, n: GatedDeltaNet.init(D_MODEL, n, key=key, heads=HEADS, expand=1),
    "mamba2": lambda key, n: Mamba2.init(D_MODEL, n, key=key, headdim=32),
}


@dataclass(frozen=True)
class Bench:
    """A task, and what the benchmark does with it."""

    task: Task
    steps: int

    def build(self, kind: str, states: int, seed: int) -> tuple[Any, Any]:
        return language_model(
            lambda key: LAYERS[kind](key, states),
            vocabulary=self.task.input_size,
            d_model=D_MODEL,
            blocks=BLOCKS,
            key=jax.random.key(seed),
        )

    def measured(self, model: Any, state: Any) -> dict[str, float]:
        """Loss [nats] and accuracy on held-out sequences."""
        batch = self.task.splits["test"].take(np.arange(min(HELD_OUT, len(self._test))))
        return OBJECTIVES[self.task.kind].report(_totals(self.task.kind, model, state, batch))

    @property
    def _test(self) -> Any:
        return self.task.splits["test"]

    def calibration(self) -> Any:
        split = self.task.splits["train"]
        rows = np.random.default_rng(1).choice(len(split), CALIBRATION, replace=False)
        return split.take(np.sort(rows))

    def seen(self, model: Any, state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs of the layers, and the gradients by their outputs, at the steps with labels."""
        batch = self.calibration()
        asked = OBJECTIVES[self.task.kind].asked
        weights = np.ones(batch.labels.shape) if asked is None else np.asarray(asked(batch.labels))
        found = record(
            (model, state),
            (batch.inputs, weights.astype(np.float32)),
            lambda both, x: both[0](x[0], both[1])[0] * x[1][:, None],
            gradients=True,
        )
        return tuple({name.removeprefix("[0]."): x for name, x in each.items()} for each in found)  # pyright: ignore

    def trained(self, kind: str, states: int, seed: int, cut: Any = None) -> tuple[Any, Any]:
        """A model after its training; `cut` is (share of the steps, rank, settings of Data)."""
        model, state = self.build(kind, states, seed)
        schedule = optax.warmup_cosine_decay_schedule(
            0, RATE, self.steps // 10, self.steps, RATE / 20
        )
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
        step = _make_step(self.task.kind, optimizer)
        opt_state = optimizer.init(eqx.filter(model, eqx.is_array))
        for k in range(self.steps + 1):
            if cut is not None and k == int(cut[0] * self.steps):
                inputs, gradients = self.seen(model, state)
                method = Data(inputs=inputs, gradients=gradients, **cut[2])
                model, opt_state = compress(model, opt_state, policy=Rank(cut[1]), method=method)
            if k == self.steps:
                break
            batch = train_batch(self.task.splits["train"], BATCH, seed, k)
            batch = jax.tree.map(lambda x: jnp.asarray(x[0]), batch)
            model, opt_state = step(batch, state, model, opt_state)
        return model, state


def _outputs(model: Any, state: Any, inputs: Any) -> Any:
    return jax.vmap(lambda x: model(x, state)[0])(inputs)


@eqx.filter_jit
def _totals(kind: Any, model: Any, state: Any, batch: Any) -> Any:
    outputs = _outputs(model, state, jnp.asarray(batch.inputs))
    return OBJECTIVES[kind].totals(outputs, batch, jnp.ones(len(batch.labels)))


def _make_step(kind: Any, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    def loss_of(model, state, batch):
        outputs = _outputs(model, state, batch.inputs)
        totals = OBJECTIVES[kind].totals(outputs, batch, jnp.ones(len(batch.labels)))
        return totals.loss / totals.number

    @eqx.filter_jit(donate="all-except-first")
    def step(batch, state, model, opt_state):
        gradient = eqx.filter_grad(loss_of)(model, state, batch)
        updates, opt_state = optimizer.update(gradient, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state

    return step


def after(benches: Mapping[str, Bench], seeds: int) -> Iterator[dict[str, Any]]:
    """Finished models cut by every method at every rank."""
    found: dict[str, Any] = {}
    for name, bench in benches.items():
        rows = found.setdefault(name, [])
        for seed in range(seeds):
            model, state = bench.trained("gated_deltanet", KEYS, seed)
            inputs, gradients = bench.seen(model, state)
            rows.append({"method": "whole", "seed": seed, **bench.measured(model, state)})
            seen = {
                keys: Observed.on(layer, inputs[path_name(keys)], gradients[path_name(keys)])  # pyright: ignore
                for keys, layer in layers_of(model)
            }
            for rank in RANKS:
                for title, method in METHODS.items():
                    cut = {keys: method(observed, rank) for keys, observed in seen.items()}
                    measured = bench.measured(replace_layers(model, cut), state)
                    rows.append({"method": title, "rank": rank, "seed": seed, **measured})
            yield {"after": found}


def during(benches: Mapping[str, Bench], seeds: int) -> Iterator[dict[str, Any]]:
    """Whole trainings: never cut, cut in training, small from the start."""
    ways: dict[str, Any] = {"whole": (KEYS, None)}
    for share, when in ((0.1, "a tenth"), (0.5, "half")):
        for maps in (True, False):
            how = "maps" if maps else "selection"
            ways[f"to 16 at {when}, {how}"] = (KEYS, (share, 16, {"maps": maps}))
    ways["16 from the start"] = (16, None)
    yield from _trainings("during", "gated_deltanet", ways, benches, seeds)


def mamba2(benches: Mapping[str, Bench], seeds: int) -> Iterator[dict[str, Any]]:
    """The same for Mamba-2; and right after a cut of the finished model."""
    ways: dict[str, Any] = {"whole": (KEYS, None), "16 from the start": (16, None)}
    for maps in (True, False):
        how = "maps" if maps else "selection"
        ways[f"to 16 at half, {how}"] = (KEYS, (0.5, 16, {"maps": maps}))
        ways[f"to 16 afterwards, {how}"] = (KEYS, (1.0, 16, {"maps": maps}))
    yield from _trainings("mamba2", "mamba2", ways, benches, seeds)


def _trainings(
    part: str, kind: str, ways: Mapping[str, Any], benches: Mapping[str, Bench], seeds: int
) -> Iterator[dict[str, Any]]:
    found: dict[str, Any] = {}
    for name, bench in benches.items():
        rows = found.setdefault(name, [])
        for seed in range(seeds):
            for title, (states, cut) in ways.items():
                model, state = bench.trained(kind, states, seed, cut)
                rows.append({"method": title, "seed": seed, **bench.measured(model, state)})
                yield {part: found}


def summary(found: Mapping[str, Any]) -> list[str]:
    lines = ["# Linear attention with fewer keys", ""]
    lines += [
        f"Two layers of d_model {D_MODEL}, {HEADS} heads of {KEYS} keys. Loss in nats, accuracy in "
        "%, on held-out sequences; means over seeds.",
        "",
    ]
    titles = {
        "after": "Gated DeltaNet, right after a cut of the finished model",
        "during": "Gated DeltaNet, at the end of training",
        "mamba2": "Mamba-2, at the end of training",
    }
    for part, title in titles.items():
        for task, rows in found.get(part, {}).items():
            seeds = len({row["seed"] for row in rows})
            lines += [f"## {title}: {task}, {seeds} seeds", ""]
            by_method: dict[str, dict[Any, list[Any]]] = {}
            for row in rows:
                by_method.setdefault(row["method"], {}).setdefault(row.get("rank"), []).append(row)
            ranks = sorted({rank for of in by_method.values() for rank in of if rank}, reverse=True)
            heads = [f"r = {rank}" for rank in ranks] or ["loss (accuracy)"]
            body = [
                [method, *(_mean(of_rank.get(rank, of_rank.get(None))) for rank in ranks or [None])]
                for method, of_rank in by_method.items()
            ]
            lines += [*table(["", *heads], body), ""]
    return lines


def _mean(rows: list[dict[str, float]] | None) -> str:
    if not rows:
        return "–"
    loss, accuracy = (np.mean([row[name] for row in rows]) for name in ("loss", "accuracy"))
    return f"{loss:.4f} ({100 * accuracy:.1f})"


PARTS = {"after": after, "during": during, "mamba2": mamba2}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--tasks", choices=CONFIGS, nargs="+", default=list(CONFIGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="instead of those of the task")
    parser.add_argument("--data-dir", type=Path, help="folder with the text of charlm")
    parser.add_argument("--quick", action="store_true", help="20 steps, once, written nowhere")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.seeds = 20, 1
    benches = {
        name: Bench(
            load_task(name, CONFIGS[name], data_dir=options.data_dir if name == "charlm" else None),
            options.steps or STEPS[name],
        )
        for name in options.tasks
    }
    path = RESULTS / "attention_cuts.json"
    for new in PARTS[options.part](benches, options.seeds):
        if options.quick:
            print("\n".join(summary(new)))
            continue
        before = json.loads(path.read_text()) if path.exists() else {}
        kept = {part: before[part] for part in PARTS if part in before}
        merged = kept | {part: {**kept.get(part, {}), **rows} for part, rows in new.items()}
        write("attention_cuts", merged, summary(merged))
