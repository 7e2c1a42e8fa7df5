"""Ways to cut Mamba and Mamba-2, side by side on the same trained language models.

    python -m benchmarks.mamba --text tinyshakespeare.txt --part train   # minutes
    python -m benchmarks.mamba --text tinyshakespeare.txt --part cuts
    python -m benchmarks.mamba --text tinyshakespeare.txt --part time    # on an idle machine
    python -m benchmarks.mamba --text tinyshakespeare.txt --part runs

Two layers of 128 channels and 64 states learn the bytes of a text. Then every method of
`benchmarks.mamba_methods` cuts them to 4, 8, 16 and 32 states: the rise of the loss at once, and
after 100 more steps over that of the uncut model after as many, both on text that neither training
nor calibration has used. `runs` are whole trainings, cut to 16 states at a tenth, with the
optimizer's state carried along, against uncut ones of the same seed. Parts add their results to
`results/mamba.json`.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from compress import Rank, compress
from compress.model.layers import layers_of, path_name, replace_layers
from compress.model.record import record
from zoo import AbstractMambaSSM, Mamba, Mamba2
from zoo.network.language_model import language_model
from zoo.recurrence.selective import selective_scan

from .harness import RESULTS, alternate, table, write
from .mamba_methods import METHODS, TRAINED_ON, Observed

KINDS = ("mamba", "mamba2")
D_MODEL, STATES, BLOCKS, LENGTH, BATCH = 64, 64, 2, 256, 16
STEPS, RATE, FOLLOWED, CALIBRATION, HELD_OUT = 600, 4e-3, 100, 32, 128
RUN_STEPS = 300
RANKS = (4, 8, 16, 32)
SEEDS, CUT_TO = (0, 1, 2), 16
LARGE = {"d_model": 128, "states": (128, 14), "blocks": 4, "batch": 8}
"""The shape at which a step is to be 2.5 times as fast."""


def build(kind: str, seed: int, d_model=D_MODEL, states=STATES, blocks=BLOCKS):
    """A model of bytes, and its (empty) state."""

    def layer(key):
        if kind == "mamba":
            return Mamba.init(d_model, states, key=key)
        return Mamba2.init(d_model, states, key=key, headdim=16)

    return language_model(
        layer, vocabulary=256, d_model=d_model, blocks=blocks, key=jax.random.key(seed)
    )


def rows(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return text[starts[:, None] + np.arange(LENGTH + 1)].astype(np.int32)


def loss_of(model: Any, state: Any, tokens: Any) -> Any:
    """Nats per byte."""
    logits = jax.vmap(lambda x: model(x, state)[0])(tokens[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))


held_out_loss = eqx.filter_jit(loss_of)


def make_step(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    @eqx.filter_jit(donate="all-except-first")
    def step(tokens, state, model, opt_state):
        loss, gradient = eqx.filter_value_and_grad(loss_of)(model, state, tokens)
        updates, opt_state = optimizer.update(gradient, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state, loss

    return step


def optimizer_of(schedule: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))


Cut = Callable[[Any, Any], tuple[Any, Any]]


def trained(
    model: Any,
    state: Any,
    text: np.ndarray,
    steps: int,
    schedule: Any,
    seed: int,
    cut: tuple[int, Cut] | None = None,
) -> Any:
    """`model` after so many steps; `cut` is a step, and what it makes of model and optimizer."""
    optimizer = optimizer_of(schedule)
    step = make_step(optimizer)
    model = jax.tree.map(lambda x: jnp.copy(x) if eqx.is_array(x) else x, model)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_array))
    rng = np.random.default_rng(seed)
    for k in range(steps):
        if cut is not None and k == cut[0]:
            model, opt_state = cut[1](model, opt_state)
        tokens = rows(text, rng.integers(0, len(text) - LENGTH - 1, BATCH))
        model, opt_state, _ = step(jnp.asarray(tokens), state, model, opt_state)
    return model


def schedule_of_run(steps: int) -> Any:
    return optax.warmup_cosine_decay_schedule(0, RATE, steps // 10, steps, RATE / 20)


class Texts:
    """Text to learn from, to weigh states on (part of the former), and held out."""

    def __init__(self, path: Path):
        text = np.frombuffer(path.read_bytes(), np.uint8)
        size = 9 * len(text) // 10
        self.learned = text[:size]
        rng = np.random.default_rng(1)
        self.calibration = rows(self.learned, rng.integers(0, size - LENGTH - 1, CALIBRATION))
        self.held_out = rows(text, size + LENGTH * np.arange(HELD_OUT))


def saved(folder: Path, kind: str) -> Path:
    return folder / f"benchmark_{kind}.eqx"


def train(texts: Texts, folder: Path) -> Iterator[dict[str, Any]]:
    """Models of both kinds, kept in `folder`."""
    found = {}
    for kind in KINDS:
        model, state = build(kind, seed=0)
        model = trained(model, state, texts.learned, STEPS, schedule_of_run(STEPS), seed=0)
        folder.mkdir(parents=True, exist_ok=True)
        eqx.tree_serialise_leaves(saved(folder, kind), model)
        found[kind] = float(held_out_loss(model, state, jnp.asarray(texts.held_out)))
        yield {"trained": {"steps": STEPS, "loss": found}}


def cuts(texts: Texts, folder: Path) -> Iterator[dict[str, Any]]:
    """Every method at every rank."""
    found = {}
    for kind in KINDS:
        for result in _cuts(kind, texts, folder):
            found[kind] = result
            yield {"cuts": found}


def _cuts(kind: str, texts: Texts, folder: Path) -> Iterator[dict[str, Any]]:
    model, state = build(kind, seed=0)
    model = eqx.tree_deserialise_leaves(saved(folder, kind), model)
    held_out = jnp.asarray(texts.held_out)

    def followed(model):
        after = trained(model, state, texts.learned, FOLLOWED, RATE / 20, seed=7)
        return float(held_out_loss(after, state, held_out))

    inputs, gradients = record((model, state), texts.calibration[:, :-1], gradients=True)
    seen = {}
    for keys, layer in layers_of(model):
        assert isinstance(layer, AbstractMambaSSM)
        name = f"[0]{path_name(keys) if path_name(keys).startswith('[') else '.' + path_name(keys)}"
        seen[keys] = Observed.on(layer, inputs[name], gradients[name])
    loss, loss_followed = float(held_out_loss(model, state, held_out)), followed(model)
    found: dict[str, Any] = {
        "loss": loss,
        "loss_followed": loss_followed,
        "parameters": _parameters(model),
        "methods": [],
    }
    for rank in RANKS:
        for name, method in METHODS[kind].items():
            start = time.perf_counter()
            layers = {keys: method(observed, rank) for keys, observed in seen.items()}
            seconds = time.perf_counter() - start
            small = replace_layers(model, layers)
            row = {
                "method": name,
                "rank": rank,
                "rise": float(held_out_loss(small, state, held_out)) - loss,
                "rise_followed": followed(small) - loss_followed if name in TRAINED_ON else None,
                "parameters": _parameters(small),
                "seconds": seconds,
            }
            found["methods"].append(row)
        yield found


def runs(texts: Texts, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Final losses of whole trainings, uncut and cut to `CUT_TO` states at a tenth."""
    found: dict[str, Any] = {}
    for kind in kinds:
        for seed in SEEDS:
            pair = {}
            for name in ("uncut", "cut"):
                model, state = build(kind, seed)
                cut = RUN_STEPS // 10, partial(_cut_in_training, state, texts)
                start = time.perf_counter()
                after = trained(
                    model,
                    state,
                    texts.learned,
                    RUN_STEPS,
                    schedule_of_run(RUN_STEPS),
                    seed,
                    cut if name == "cut" else None,
                )
                pair[name] = float(held_out_loss(after, state, jnp.asarray(texts.held_out)))
                pair[f"{name}_seconds"] = time.perf_counter() - start
            found.setdefault(kind, []).append({"seed": seed, **pair})
            yield {"runs": found}


def _cut_in_training(state: Any, texts: Texts, model: Any, opt_state: Any) -> tuple[Any, Any]:
    batch = texts.calibration[:, :-1]
    (small, _), opt_state = compress((model, state), opt_state, policy=Rank(CUT_TO), batch=batch)
    return small, opt_state


def _parameters(model: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_array)))


def timings(texts: Texts, folder: Path) -> Iterator[dict[str, Any]]:
    """Training steps of whole and cut models, and the recurrence alone."""
    steps = {}
    for kind in KINDS:
        for states in (STATES, CUT_TO):
            steps[f"{kind}, {states} states"] = _step_job(kind, texts, states=states)
    large = {
        f"mamba, {states} states": _step_job(
            "mamba",
            texts,
            states=states,
            batch=LARGE["batch"],
            d_model=LARGE["d_model"],
            blocks=LARGE["blocks"],
        )
        for states in LARGE["states"]
    }
    scans = {f"{states} states": _scan_job(states) for states in (64, 16)}
    yield {
        "time": {
            "step": alternate(steps, 7),
            "large_step": alternate(large, 5),
            "scan": alternate(scans, 7),
        }
    }


def _step_job(kind: str, texts: Texts, *, states: int, batch: int = BATCH, **shape: int):
    model, state = build(kind, seed=0, states=states, **shape)
    optimizer = optimizer_of(1e-4)
    step = make_step(optimizer)
    tokens = jnp.asarray(rows(texts.learned, np.arange(batch) * LENGTH))
    held = [model, optimizer.init(eqx.filter(model, eqx.is_array))]

    def job():
        held[0], held[1], loss = step(tokens, state, *held)
        return loss

    return job


def _scan_job(states: int):
    key = jax.random.key(0)
    d = 2 * D_MODEL
    x, dt = (jax.random.normal(k, (BATCH, LENGTH, d)) for k in jax.random.split(key))
    B, C = (jax.random.normal(k, (BATCH, LENGTH, states)) for k in jax.random.split(key))
    A = -jnp.tile(jnp.arange(1.0, states + 1), (d, 1))

    @jax.jit
    @jax.grad
    def gradient(arrays):
        x, dt, A, B, C = arrays
        y, _ = jax.vmap(selective_scan, in_axes=(0, 0, None, 0, 0))(x, dt, A, B, C)
        return jnp.sum(y**2)

    arrays = x, 0.01 * jnp.abs(dt), A, B, C
    return lambda: gradient(arrays)


def summary(found: dict[str, Any]) -> list[str]:
    lines = ["# Mamba and Mamba-2 with fewer states", ""]
    lines += [
        f"Two layers of {2 * D_MODEL} channels and {STATES} states, {STEPS} steps on bytes of a "
        "text. Rise of the held-out loss (nats per byte) right after the cut to so many states"
        f", and after {FOLLOWED} more steps over that of the uncut model after as many.",
        "",
    ]
    for kind, result in found.get("cuts", {}).items():
        lines += [f"## {kind}: loss {result['loss']:.4f}, {result['parameters']} parameters", ""]
        by_method: dict[str, dict[int, Any]] = {}
        for row in result["methods"]:
            by_method.setdefault(row["method"], {})[row["rank"]] = row
        ranks = sorted({row["rank"] for row in result["methods"]})
        for key, title in (("rise", "right after"), ("rise_followed", f"{FOLLOWED} steps later")):
            body = [
                [name, *(f"{of_rank[r][key]:+.4f}" for r in ranks)]
                for name, of_rank in by_method.items()
                if of_rank[ranks[0]][key] is not None
            ]
            lines += [*table([title, *(f"r = {r}" for r in ranks)], body), ""]
        body = [
            [name, *(of_rank[r]["parameters"] for r in ranks)]
            for name, of_rank in by_method.items()
            if name in TRAINED_ON
        ]
        lines += [*table(["parameters", *(f"r = {r}" for r in ranks)], body), ""]
    if "runs" in found:
        lines += [f"## Cut to {CUT_TO} states at a tenth of {RUN_STEPS} steps", ""]
        body = [
            [
                kind,
                row["seed"],
                *(f"{row[name]:.4f}" for name in ("uncut", "cut")),
                f"{100 * (row['cut'] / row['uncut'] - 1):+.2f} %",
            ]
            for kind, seeds in found["runs"].items()
            for row in seeds
        ]
        head = ["layer", "seed", "final loss, uncut", "cut", "difference"]
        lines += [*table(head, body), ""]
    if "time" in found:
        lines += ["## Time [ms]: median of alternating runs, quartiles", ""]
        body = [
            [
                what,
                name,
                f"{1e3 * t['median']:.0f}",
                f"{1e3 * t['low']:.0f} to {1e3 * t['high']:.0f}",
            ]
            for what, title in (
                ("training step", "step"),
                (
                    f"training step, {LARGE['blocks']} layers, d_model {LARGE['d_model']}",
                    "large_step",
                ),
                ("selective scan alone, forward and backward", "scan"),
            )
            for name, t in found["time"][title].items()
        ]
        lines += table(["", "", "median", "quartiles"], body)
    return lines


PARTS = ("train", "cuts", "runs", "time")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="any text file")
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS, help="of `runs`")
    parser.add_argument("--models", type=Path, default=Path("runs"), help="where models are kept")
    options = parser.parse_args()
    path = RESULTS / "mamba.json"
    parts = {
        "train": train,
        "cuts": cuts,
        "time": timings,
        "runs": lambda texts, _: runs(texts, options.kinds),
    }
    for new in parts[options.part](Texts(options.text), options.models):
        # other parts may have been written meanwhile
        before = json.loads(path.read_text()) if path.exists() else {}
        found = {key: before[key] for key in ("trained", "cuts", "runs", "time") if key in before}
        write("mamba", found | new, summary(found | new))
