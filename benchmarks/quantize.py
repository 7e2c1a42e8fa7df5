"""What fewer bits for weights and states cost, by states and by realisation.

    python benchmarks/quantize.py --data-dir FOLDER [--parts digits smnist charlm]
    python benchmarks/quantize.py --quick     # few steps on digits alone; writes no results

Small models are trained by `training.fit`, which cuts them to so many states on the way, and then
rounded by `zoo.quantize` without any more training. On digits, LRU and S5 of four sizes are tried
with several numbers of bits, and in three realisations that compute the same function: as trained;
each state scaled so that its entries in both Gramians are equal (`balanced`; the layers are
diagonal, which leaves no more freedom); or so that its variance under white noise is one (`equal
variance`). The error is that of the logits, relative to their root mean square. Then sequential
MNIST with an LRU, and the bits per character of a Mamba. Writes `results/quantize.json` and
`results/quantize.md`, after each run; what is not run stays as it is there.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from harness import RESULTS, table, write
from rich.console import Console

from data import Split, Task, load_task
from training import TrainedRun, fit
from zoo import AbstractLinearSSM, quantize

STATES = (64, 32, 16, 8)
BITS: list[tuple[int | None, int | None]] = [
    # of weights, and of states
    (8, None),
    (6, None),
    (4, None),
    (3, None),
    (None, 8),
    (None, 6),
    (None, 4),
    (8, 8),
]
FEW_BITS: list[tuple[int | None, int | None]] = [(8, None), (4, None), (None, 8), (8, 8)]
STEPS = {"digits": 1000, "smnist": 1500, "charlm": 800}
MODELS = {"digits": ("lru", "s5"), "smnist": ("lru",), "charlm": ("mamba",)}
JUDGED = {"digits": None, "smnist": 2000, "charlm": 64}
"""Sequences of the test split that count; None for all."""


def scaled(layer: AbstractLinearSSM, how: str) -> AbstractLinearSSM:
    """The same system with each state times a number: B grows by it, C shrinks."""
    lti = layer.to_lti()
    decay = -jnp.expm1(2 * jnp.real(lti.log_lam))
    P = jnp.sum(jnp.abs(lti.B) ** 2, axis=1) / decay
    Q = jnp.sum(jnp.abs(lti.C) ** 2, axis=0) / decay
    by = {"balanced": (Q / P) ** 0.25, "equal variance": P**-0.5}[how]
    new = eqx.tree_at(lambda s: (s.B, s.C), lti, (lti.B * by[:, None], lti.C / by))
    return layer.from_lti(new)


def realised(model: Any, how: str) -> Any:
    """`model` with all its linear layers `scaled`."""

    def is_layer(x: Any) -> bool:
        return isinstance(x, AbstractLinearSSM)

    def one(x: Any) -> Any:
        return scaled(x, how) if is_layer(x) else x

    return model if how == "as trained" else jax.tree.map(one, model, is_leaf=is_layer)


def size_of(model: Any) -> int:
    """Bytes of all arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(model) if eqx.is_array(x))


def named(bits: tuple[int | None, int | None]) -> str:
    weights, states = ("32" if each is None else str(each) for each in bits)
    return f"{weights} / {states}"


def scored(run: TrainedRun, test: Split, outputs: np.ndarray) -> dict[str, float]:
    """What counts, from the outputs where they say it: a score of its own compiles again."""
    if run.task.kind == "classification":
        return {"accuracy": float(np.mean(np.argmax(outputs, axis=-1) == test.labels))}
    return run.score(test)


def judged(
    run: TrainedRun,
    test: Split,
    how: str,
    bits: list[tuple[int | None, int | None]],
) -> dict[str, Any]:
    """Score, error of the outputs and bytes of a model in one realisation, by bits."""
    model = realised(run.model, how)
    inputs = {"lengths": test.lengths} if test.lengths is not None else {}
    base = run.predict(test.inputs, **inputs)
    results: dict[str, Any] = {}
    for each in [(None, None), *bits]:
        small = model if each == (None, None) else quantize(model, each[0], state_bits=each[1])
        own = replace(run, model=small)
        outputs = own.predict(test.inputs, **inputs)
        results[named(each)] = {
            "score": scored(own, test, outputs),
            "error": float(np.sqrt(np.mean((outputs - base) ** 2) / np.mean(base**2))),
            "bytes": size_of(small),
        }
    return results


def trained(task: Task, model: str, states: int | None, steps: int, seed: int) -> TrainedRun:
    """A run that is cut to so many states; that stays as it is where they are None."""
    compression = {"mode": "none"} if states is None else {"mode": "fixed", "rank": states}
    with tempfile.TemporaryDirectory() as folder:
        return fit(
            task.name,
            model,
            out=Path(folder) / "run",
            console=Console(file=StringIO()),
            steps=steps,
            seed=seed,
            compression=compression,
            **({"layer": {"d_state": STATES[0]}} if model != "mamba" else {}),
        )


def measure(
    part: str, data_dir: Path | None, steps: int, seeds: int, states: tuple[int, ...]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a task, those of one run at a time."""
    task = load_task(part, data_dir=data_dir)
    test = task.splits["test"]
    if (count := JUDGED[part]) is not None:
        test = test.select(slice(0, count))
    for model in MODELS[part]:
        sizes: tuple[int | None, ...] = (None, 8) if model == "mamba" else states
        for size in sizes:
            for seed in range(seeds):
                run = trained(task, model, None if size == STATES[0] else size, steps, seed)
                rows, hows = [], ["as trained"]
                if part == "digits":
                    hows += ["balanced", "equal variance"]
                for how in hows:
                    bits = BITS if part == "digits" else FEW_BITS
                    row = {"model": model, "seed": seed, "realisation": how}
                    rows.append(row | {"size": size, "bits": judged(run, test, how, bits)})
                print(f"{part} {model} {size} seed {seed}", flush=True)
                yield rows


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of before and new ones, which take the place of those of the same run, in order."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["model"], -(row["size"] or 1000), row["seed"], row["realisation"]

    rows = {key(row): row for row in [*old, *new]}
    return [rows[k] for k in sorted(rows)]


def mean(rows: list[dict[str, Any]], get: Callable[[dict[str, Any]], float]) -> float:
    return float(np.mean([get(row) for row in rows]))


def measure_of(part: str) -> tuple[str, Callable[[float], str]]:
    """The name of the score that is shown, and how."""
    if part == "charlm":
        return "bits_per_character", lambda x: f"{x:.3f}"
    return "accuracy", lambda x: f"{x:.1%}"


def section(part: str, rows: list[dict[str, Any]]) -> list[str]:
    name, show = measure_of(part)
    columns = list(rows[0]["bits"])
    seeds = len({row["seed"] for row in rows})
    keys = list(dict.fromkeys((r["model"], r["size"], r["realisation"]) for r in rows))
    scores, errors, sizes = [], [], []
    for model, size, how in keys:
        own = [r for r in rows if (r["model"], r["size"], r["realisation"]) == (model, size, how)]
        head = [model, "as at the start" if size is None else size, how]
        scores.append(
            [*head, *[show(mean(own, lambda r, c=c: r["bits"][c]["score"][name])) for c in columns]]
        )
        errors.append(
            [
                *head,
                *[f"{mean(own, lambda r, c=c: r['bits'][c]['error']):.2%}" for c in columns[1:]],
            ]
        )
        if how == "as trained":
            both = [mean(own, lambda r, c=c: r["bits"][c]["bytes"]) / 1e3 for c in columns[:2]]
            sizes.append([*head[:2], *[f"{each:.1f}" for each in both]])
    head = ["model", "states", "realisation"]
    return [
        f"## {part}",
        "",
        f"{name.replace('_', ' ').capitalize()}, "
        f"{'one seed' if seeds == 1 else f'mean of {seeds} seeds'}. Columns are bits of weights / "
        "bits of states.",
        "",
        *table([*head, *columns], scores),
        "",
        "Error of the outputs, relative to their root mean square:",
        "",
        *table([*head, *columns[1:]], errors),
        "",
        "Kilobytes of the model:",
        "",
        *table(["model", "states", "float32", "8 bits"], sizes),
        "",
    ]


def lines(parts: dict[str, list[dict[str, Any]]]) -> list[str]:
    return [
        "Weights and states of fewer bits, after training, in realisations that compute the same.",
        "",
        *[line for part, rows in parts.items() for line in section(part, rows)],
    ][:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder with the tasks' official files")
    parser.add_argument("--parts", nargs="+", choices=tuple(STEPS), default=list(STEPS))
    parser.add_argument("--states", type=int, nargs="+", default=list(STATES), help="of digits")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few steps, written nowhere")
    options = parser.parse_args()
    if options.quick:
        found = measure("digits", None, 30, 1, (8,))
        print("\n".join(lines({"digits": [row for rows in found for row in rows]})))
        return
    file = RESULTS / "quantize.json"
    parts = json.loads(file.read_text())["parts"] if file.exists() else {}
    for part in options.parts:
        place = None if options.data_dir is None else options.data_dir / part
        place = place if place is not None and place.exists() else None
        seeds = options.seeds if part == "digits" else 1
        states = tuple(options.states) if part == "digits" else (64, 16)
        for rows in measure(part, place, STEPS[part], seeds, states):
            parts[part] = merged(parts.get(part, []), rows)
            ordered = {each: parts[each] for each in STEPS if each in parts}
            write("quantize", {"steps": STEPS, "parts": ordered}, lines(ordered))


if __name__ == "__main__":
    main()
