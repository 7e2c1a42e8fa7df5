"""The recurrence and whole training steps on a GPU, at the paper's sizes.

    python benchmarks/gpu.py [--quick]
    python benchmarks/gpu.py --tables-from results/gpu.json

Forms of the recurrence over a grid, forward and backward pass, each against double precision, and
the cost model that fits their times; the time-varying recurrence; whole training steps against the
same network on an associative scan. Programs are compiled several at a time, since that takes most
of the time, and measured one at a time, taking turns. Writes `results/gpu.json` and
`results/gpu.md`, also after an early end. With `--tables-from`, the tables are made from earlier
measurements and the present cost model; nothing is measured.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import alternate, difference, milliseconds, table, temporary_mib, write
from layer import BASELINE, ORACLE, fit, forward_and_backward, time_varying
from programs import Program, Setting
from step import STEPS

from zoo.recurrence.choice import Choice, Size, choose_form, recurrence_form

GRID = [
    # batch, L, H, N: the paper's settings, and their sizes after shrinks
    (50, 784, 8, 256),
    (50, 784, 8, 28),
    (50, 1024, 512, 384),
    (50, 1024, 512, 93),
    (32, 2048, 128, 256),
    (32, 4096, 256, 192),
    (64, 1024, 192, 64),
    # others
    (1, 16384, 32, 64),
    (16, 512, 64, 16),
    (4, 1024, 128, 256),
    (1, 65536, 8, 256),
]
QUICK_GRID = [(4, 256, 8, 16), (2, 128, 96, 8)]
SETTINGS = {
    "smnist": (Setting(blocks=1, d_model=8, L=784, batch=50), (256, 28)),
    "scifar": (
        Setting(blocks=6, d_model=512, L=1024, batch=50, channels=3),
        (384, 161, 93, 57),
    ),
}
QUICK_SETTINGS = {"smnist": (Setting(blocks=1, d_model=8, L=100, batch=4), (16, 4))}
TURN = 0.02
PROGRAMS = ("ours", "public")


def at_once(workers: int, jobs: Iterable[Callable[[], Any]]) -> list[Any]:
    """Results of all jobs, or their errors."""

    def attempt(job: Callable[[], Any]) -> Any:
        try:
            return job()
        except Exception as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(attempt, jobs))


def candidates(H: int) -> list[Choice]:
    """Forms that may be among the best for so many channels, and the baseline."""
    some = [("matmul", T) for T in ((4, 8, 16, 32) if H <= 64 else (1, 2, 4, 8))]
    some.append(("fft", 32) if H <= 64 else ("associative", 1024))
    return [ORACLE, *(Choice(*each) for each in some)]


def problem(batch: int, L: int, H: int, N: int) -> list[jax.Array]:
    """The arguments of `forward_and_backward`."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    decay = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), N))
    log_lam = (-decay + 1j * rng.uniform(-3, 3, N)).astype(np.complex64)
    B = (normal(N, H) + 1j * normal(N, H)) / np.float32(np.sqrt(2 * H))
    C = (normal(H, N) + 1j * normal(H, N)) / np.float32(np.sqrt(N))
    return [jnp.asarray(x) for x in (log_lam, B, C, normal(batch, L, H), normal(batch, L, H))]


def compiler(size: tuple[int, int, int, int], choice: Choice | None) -> Callable[[], Any]:
    """A function that compiles a form for this size; None gives the outputs in double precision."""
    batch, L, H, N = size
    double = choice is None

    def compile_it():
        with jax.enable_x64(double), recurrence_form(*(choice or ("scan", 256))):
            # enable_x64 first: it is what says which types there are
            real, kind = (jnp.float64, jnp.complex128) if double else (jnp.float32, jnp.complex64)
            complexes = [jax.ShapeDtypeStruct(s, kind) for s in ((N,), (N, H), (H, N))]
            shapes = [*complexes, *[jax.ShapeDtypeStruct((batch, L, H), real)] * 2]
            # a function of its own: traces of one function are shared between forms
            return jax.jit(lambda *a: forward_and_backward(*a)).lower(*shapes).compile()

    return compile_it


def in_double_precision(program: Any, arguments: list[jax.Array]) -> Any:
    """Outputs and gradients of single-precision arguments with all their digits, then rounded."""
    with jax.enable_x64(True):
        wide = [x.astype(jnp.result_type(x.dtype, jnp.float64)) for x in arguments]
        return jax.tree.map(
            lambda x: x.astype(jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32),
            program(*wide),
        )


@jax.jit
def apart(ours: Any, theirs: Any) -> Any:
    """`harness.difference`, where the arrays are."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return jnp.max(jnp.stack([jnp.abs(a - b).max() / jnp.abs(b).max() for a, b in pairs]))


def measure_layers(grid, repeats: int, workers: int) -> list[dict]:
    """One row for each size, all its forms taking turns."""
    plan = [(size, choice) for size in grid for choice in [None, *candidates(size[2])]]
    made = at_once(workers, [compiler(*each) for each in plan])
    everything = dict(zip(plan, made, strict=True))
    rows = []
    for size in grid:
        programs = {c: everything.pop((size, c)) for c in candidates(size[2])}
        arguments = problem(*size)
        expected = in_double_precision(everything.pop((size, None)), arguments)
        errors, failed = {}, {}
        for choice, program in programs.items():
            try:
                if isinstance(program, Exception):
                    raise program
                errors[choice] = float(apart(program(*arguments), expected))
            except Exception as error:
                failed[f"{choice.form} {choice.chunk}"] = str(error)[:300]
        timed = {c: lambda p=programs[c], a=arguments: p(*a) for c in errors}
        seconds = alternate(timed, repeats, TURN)
        rows.append(
            {
                **dict(zip(("batch", "L", "H", "N"), size, strict=True)),
                "failed": failed,
                "forms": [
                    {
                        "form": BASELINE if c is ORACLE else c.form,
                        "chunk": min(c.chunk, size[1]),
                        "seconds": seconds[c],
                        "difference": errors[c],
                        "temporary_mib": temporary_mib(programs[c]),
                    }
                    for c in errors
                ],
            }
        )
        print(size, {f"{c.form}{c.chunk}": round(1e3 * s["median"], 3) for c, s in seconds.items()})
        print("  errors", {f"{c.form}{c.chunk}": f"{e:.0e}" for c, e in errors.items()}, failed)
    return rows


def chosen(batch: int, L: int, H: int, N: int) -> str:
    """Name of what `lti_apply` takes for a layer of this size."""
    return " ".join(map(str, choose_form(Size(batch, L, H, H, N), "gpu", fused=False)))


def measure_steps(settings, repeats: int, workers: int) -> list[dict]:
    """One row for each setting and number of states."""
    sizes = [(name, n) for name, (_, states) in settings.items() for n in states]
    plan = [(*size, layer) for size in sizes for layer in PROGRAMS]
    made = at_once(
        workers,
        [partial(Program, settings[name][0], n, layer, STEPS) for name, n, layer in plan],
    )
    everything = dict(zip(plan, made, strict=True))
    rows = []
    for name, n in sizes:
        setting = settings[name][0]
        programs, failed = {}, {}
        for layer in PROGRAMS:
            program = everything.pop((name, n, layer))
            try:
                if isinstance(program, Exception):
                    raise program
                jax.block_until_ready(program())
                programs[layer] = program
            except Exception as error:
                failed[layer] = str(error)[:300]
        seconds = {
            layer: {quantile: each / STEPS for quantile, each in dispatch.items()}
            for layer, dispatch in alternate(programs, repeats, 5 * TURN).items()
        }
        rows.append(
            {
                "setting": name,
                "d_state": n,
                **vars(setting),
                "form": chosen(setting.batch, setting.L, setting.d_model, n),
                "seconds": seconds,
                "failed": failed,
                "temporary_mib": {k: p.temporary_mib for k, p in programs.items()},
            }
        )
        print(name, n, {k: round(1e3 * s["median"], 3) for k, s in seconds.items()}, failed)
    return rows


def agreement(setting: Setting, n: int) -> float:
    """How far loss and gradients of a first step without dropout lie from the baseline's."""
    first = {}
    with jax.default_matmul_precision("highest"):
        for layer in ("ours", "public"):
            program = Program(replace(setting, dropout=0.0), n, layer)
            jax.block_until_ready(program())
            first[layer] = program.loss_and_gradient()
    return difference(first["ours"], first["public"])


def fitted(rows: list[dict]) -> dict[str, float]:
    """The cost model that comes nearest to the medians."""
    return fit(rows, "median")._asdict()


def lines(found: dict) -> list[str]:
    text = []
    if rows := found.get("layers"):
        cells = []
        for row in rows:
            forms = {f"{f['form']} {f['chunk']}": f for f in row["forms"]}
            baseline = next(f for f in row["forms"] if f["form"] == BASELINE)
            ours = {k: f for k, f in forms.items() if f is not baseline}
            choice = chosen(row["batch"], row["L"], row["H"], row["N"])
            if choice not in ours:
                continue
            taken = ours[choice]["seconds"]["median"]
            best = min(ours, key=lambda k: ours[k]["seconds"]["median"])
            cells.append(
                [
                    *(row[name] for name in ("batch", "L", "H", "N")),
                    choice,
                    f"{1e3 * taken:.3f}",
                    best,
                    f"{taken / ours[best]['seconds']['median']:.2f}",
                    f"{baseline['seconds']['median'] / taken:.1f}",
                    f"{ours[choice]['difference']:.0e}",
                    f"{baseline['difference']:.0e}",
                ]
            )
        columns = ["batch", "L", "H", "N", "chosen", "ms", "best", "chosen / best", "gain"]
        text += [
            "u -> y for a batch, forward and backward. Gain: against the associative scan over "
            "the whole length, with its states made again in the backward pass. Error: the "
            "largest of outputs and gradients, relative to the largest entry of each array, "
            "against double precision; matrix products are in JAX's default precision. These are "
            "the cells that the cost model was fitted to.",
            "",
            *table([*columns, "error", "its error"], cells),
            "",
            "Fit: " + ", ".join(f"{k} {v:.2g} s" for k, v in found["machine"].items()) + ".",
            "",
        ]
    if recurrence := found.get("time_varying"):
        seconds = recurrence["seconds"]
        text += [
            "Time-varying recurrence, batch 4, L = 1024, 4096 real states: "
            f"{1e3 * seconds['ours']['median']:.2f} ms against "
            f"{1e3 * seconds['associative']['median']:.2f} ms for the associative scan with "
            f"autodiff ({recurrence['gain']:.1f} times), outputs and gradients within "
            f"{recurrence['agreement']:.0e}.",
            "",
        ]
    if rows := found.get("steps"):
        cells = []
        for row in rows:
            seconds, memory = row["seconds"], row["temporary_mib"]
            first = next(r for r in rows if r["setting"] == row["setting"])["seconds"]["ours"]
            cells.append(
                [
                    f"{row['setting']}: {row['blocks']} x H={row['d_model']}, L={row['L']}, batch "
                    f"{row['batch']}",
                    row["d_state"],
                    row["form"],
                    *(milliseconds(seconds[k], 2) if k in seconds else "-" for k in PROGRAMS),
                    f"{seconds['public']['median'] / seconds['ours']['median']:.1f}"
                    if "public" in seconds
                    else "-",
                    f"{first['median'] / seconds['ours']['median']:.2f}",
                    *(f"{memory[k]:.0f}" if k in memory else "-" for k in PROGRAMS),
                ]
            )
        columns = [
            "setting",
            "N",
            "form",
            "ours, ms",
            "associative scan, ms",
            "gain",
            "against first N",
        ]
        text += [
            f"Whole training steps, {STEPS} to a dispatch, against the same network on an "
            "associative scan with autodiff, as public packages write it; a - where it does not "
            "fit. Against first N: how much a shrink speeds our step up.",
            "",
            *table([*columns, "memory, MiB", "its memory, MiB"], cells),
            "",
        ]
    if agrees := found.get("agreement"):
        text += [
            "In full single precision, loss and all gradients of a first step agree with the "
            "baseline's to " + ", ".join(f"{each:.0e} ({name})" for name, each in agrees.items()),
        ]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes, written nowhere")
    parser.add_argument("--skip", nargs="*", default=[], help="parts to leave out")
    parser.add_argument("--tables-from", nargs="+", type=Path, help="earlier results, merged")
    options = parser.parse_args()
    if options.tables_from:
        found: dict[str, Any] = {}
        for file in options.tables_from:
            found |= json.loads(file.read_text())
        found["machine"] = fitted(found["layers"])
        write("gpu", found, lines(found))
        return
    workers = max(1, (os.cpu_count() or 2) - 2)
    settings = QUICK_SETTINGS if options.quick else SETTINGS
    grid = QUICK_GRID if options.quick else GRID
    smallest = {name: (setting, states[-1]) for name, (setting, states) in settings.items()}
    parts: dict[str, Callable[[], Any]] = {
        "layers": lambda: measure_layers(grid, options.repeats, workers),
        "time_varying": lambda: time_varying(64 if options.quick else 1024, options.repeats),
        "steps": lambda: measure_steps(settings, options.repeats, workers),
        "agreement": lambda: {name: agreement(*each) for name, each in smallest.items()},
    }
    found = {}
    for name, part in parts.items():
        if name not in options.skip:
            found[name] = part()
            if name == "layers":
                found["machine"] = fitted(found["layers"])
            if not options.quick:
                write("gpu", found, lines(found))
    if options.quick:
        print("\n".join(lines(found)))
    assert np.isfinite(sum(found.get("agreement", {}).values()))


if __name__ == "__main__":
    main()
