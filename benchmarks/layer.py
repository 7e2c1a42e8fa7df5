"""All forms of the recurrence over a grid of sizes, compared with the chosen one.

    python benchmarks/layer.py [--quick]
    python benchmarks/layer.py --recurrence
    python benchmarks/layer.py --fit

Forward and backward pass of u -> y for a batch, all gradients, alternating in one process; values
and gradients of every form against those in double precision. Forms that the cost model puts at
more than three times the best are left out. Writes `results/layer.json` and `results/layer.md`, and
of the time-varying recurrence `results/time_varying.json` and `.md` (`--recurrence`: these alone).

With `--fit`, all forms over another grid, and the numbers of the cost model that come nearest to
their times: `results/layer_fit.json` and `results/layer_fit.md`. Held on one core (`taskset -c 0`)
it writes `layer_one_core` and so on.
"""

import argparse
import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import PAPER, alternate, difference, table, temporary_mib, write
from scipy.optimize import nnls

from zoo import linear_recurrence, lti_apply
from zoo.recurrence.choice import (
    GPU,
    Choice,
    Machine,
    Size,
    candidates,
    choose_form,
    cost,
    on_cores,
    recurrence_form,
    stored_states,
    usable_cores,
    work,
)
from zoo.recurrence.compiled import native

KIND = "cpu" if jax.default_backend() == "cpu" else "gpu"
ORACLE = Choice("associative", 2**30)
FUSED = native("float32")
MACHINE = on_cores(usable_cores()) if KIND == "cpu" else GPU
CORES = "_one_core" if usable_cores() == 1 and KIND == "cpu" else ""
"""A process on one core, for example by taskset, writes separate files."""
BASELINE = "associative scan over L"
"""Its name in results."""
GRID = list(itertools.product([(1, 4096), (16, 512)], [8, 32, 128, 512], [16, 64, 256]))


FIT = [
    # between the cells of GRID, and apart from all of PAPER
    (24, 640, 8, 32),
    (40, 896, 8, 24),
    (40, 896, 8, 96),
    (24, 640, 8, 192),
    (24, 640, 8, 400),
    (8, 1024, 24, 48),
    (8, 1024, 24, 320),
    (8, 768, 64, 32),
    (8, 768, 64, 160),
    (2, 3000, 96, 48),
    (2, 3000, 16, 96),
    (1, 6000, 16, 48),
    (2, 1280, 256, 40),
    (2, 1280, 256, 200),
]


def sizes(quick: bool) -> list[tuple[int, int, int, int]]:
    grid = [(batch, L, H, N) for (batch, L), H, N in GRID]
    return [(4, 256, 8, 16), (2, 256, 64, 32)] if quick else PAPER + grid


def problem(batch: int, L: int, H: int, N: int):
    rng = np.random.default_rng(0)
    log_lam = -np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), N)) + 1j * rng.uniform(-3, 3, N)
    B = (rng.normal(size=(N, H)) + 1j * rng.normal(size=(N, H))) / np.sqrt(2 * H)
    C = (rng.normal(size=(H, N)) + 1j * rng.normal(size=(H, N))) / np.sqrt(N)
    u = rng.normal(size=(batch, L, H))
    weights = rng.normal(size=(batch, L, H))
    complexes = [jnp.asarray(x, jnp.complex64) for x in (log_lam, B, C)]
    return [*complexes, jnp.asarray(u, jnp.float32), jnp.asarray(weights, jnp.float32)]


def forward_and_backward(log_lam, B, C, u, weights):
    """Outputs, and the gradients of a loss linear in them."""

    def outputs(log_lam, B, C, u):
        return jax.vmap(lambda u: lti_apply(log_lam, B, C, u)[0])(u)

    y, vjp = jax.vjp(outputs, log_lam, B, C, u)
    return y, vjp(weights)


def in_double_precision(arguments):
    """Outputs and gradients of these single-precision arguments, with all their digits."""
    with jax.enable_x64(True), recurrence_form("scan", 256):
        wide = [np.asarray(x).astype(np.result_type(x.dtype, np.float64)) for x in arguments]
        return jax.tree.map(np.asarray, jax.jit(lambda *a: forward_and_backward(*a))(*wide))


def measure(batch: int, L: int, H: int, N: int, repeats: int, within: float = 3) -> dict:
    """One cell: all forms whose estimates are `within` that times the least one."""
    arguments = problem(batch, L, H, N)
    size = Size(batch, L, H, H, N)
    estimates = {choice: cost(choice, size, MACHINE) for choice in candidates(KIND, fused=FUSED)}
    tried = [c for c, seconds in estimates.items() if seconds < within * min(estimates.values())]
    programs = {}
    for choice in [ORACLE, *tried]:
        with recurrence_form(*choice):
            # a function of its own: traces of one function are shared between forms
            program = jax.jit(lambda *a: forward_and_backward(*a))
            programs[choice] = program.lower(*arguments).compile()
    expected = in_double_precision(arguments)
    worst = {c: difference(program(*arguments), expected) for c, program in programs.items()}
    timed = {c: lambda c=c: programs[c](*arguments) for c in programs}
    seconds = alternate(timed, repeats)
    chosen = choose_form(size, fused=FUSED)
    best = min(tried, key=lambda c: seconds[c]["median"])
    return {
        "batch": batch,
        "L": L,
        "H": H,
        "N": N,
        "forms": [
            {
                "form": c.form if c is not ORACLE else BASELINE,
                "chunk": min(c.chunk, L),
                "seconds": seconds[c],
                "difference": worst[c],
                "temporary_mib": temporary_mib(programs[c]),
                "estimate": estimates.get(c),
            }
            for c in programs
        ],
        "chosen": f"{chosen.form} {chosen.chunk}",
        "best": f"{best.form} {best.chunk}",
        "chosen_over_best": seconds[chosen]["median"] / seconds[best]["median"],
        "chosen_ms": 1e3 * seconds[chosen]["median"],
        "gain": seconds[ORACLE]["median"] / seconds[chosen]["median"],
        "agreement": max(error for c, error in worst.items() if c is not ORACLE),
        "oracle_agreement": worst[ORACLE],
    }


def fit(rows: list[dict], quantile: str = "low") -> Machine:
    """The `Machine` whose estimates have the least squared relative error."""
    kinds, ones = [], []
    for row in rows:
        N = stored_states(row["N"], KIND)
        size = Size(row["batch"], row["L"], row["H"], row["H"], N)
        for form in row["forms"]:
            if form["form"] != BASELINE:
                amounts = work(Choice(form["form"], form["chunk"]), size)
                kinds.append(np.asarray(amounts) / form["seconds"][quantile])
                ones.append(1.0)
    columns = np.asarray(kinds)
    scales = columns.max(axis=0)
    scales[scales == 0] = 1  # no form here does this kind of work
    return Machine(*(nnls(columns / scales, np.asarray(ones))[0] / scales).tolist())


def write_fit(rows: list[dict]) -> None:
    machine = fit(rows)
    cells = []
    for row in rows:
        size = Size(row["batch"], row["L"], row["H"], row["H"], row["N"])
        for form in row["forms"]:
            if form["form"] != BASELINE:
                seconds = form["seconds"]["low"]
                estimate = cost(Choice(form["form"], form["chunk"]), size, machine)
                name = f"{form['form']} {form['chunk']}"
                times = [f"{1e3 * s:.1f}" for s in (seconds, estimate)]
                cells.append([*size[:2], row["H"], row["N"], name, *times])
    text = [
        "Fit of the cost model: lower quartiles of the times, and what the model makes of them.",
        "",
        ", ".join(f"{name} {value:.2g} s" for name, value in machine._asdict().items()),
        "",
        *table(["batch", "L", "H", "N", "form", "ms", "estimate, ms"], cells),
    ]
    write("layer_fit" + CORES, {"machine": machine._asdict(), "cells": rows}, text, made_by="layer")


def time_varying_programs(L: int) -> dict[str, partial[Any]]:
    """Forward and backward pass of a recurrence of 4096 real states, batch 4: ours, an autodiffed
    associative scan, and `streams`, which reads and writes what both have to and no more.
    """
    rng = np.random.default_rng(0)
    data = [jnp.asarray(rng.uniform(size=(4, L, 4096)), jnp.float32) for _ in range(3)]

    def compose(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    def associative(a, b):
        return jax.lax.associative_scan(compose, (a, b))[1]

    def differentiated(form):
        def run(a, b, weights):
            x, vjp = jax.vjp(jax.vmap(form), a, b)
            return x, vjp(weights)

        return run

    def streams(a, b, weights):
        x, a, weights = jax.lax.optimization_barrier((a + b, a, weights))
        return x, (weights * x, weights * a)

    programs = {
        "ours": differentiated(linear_recurrence),
        "associative": differentiated(associative),
        "streams": streams,
    }
    return {k: partial(jax.jit(f).lower(*data).compile(), *data) for k, f in programs.items()}


def time_varying(L: int, repeats: int) -> dict:
    """`time_varying_programs`, timed in turns and compared."""
    programs = time_varying_programs(L)
    agreement = difference(programs["ours"](), programs["associative"]())
    seconds = alternate(programs, repeats)
    ratio = seconds["associative"]["median"] / seconds["ours"]["median"]
    memory = {k: temporary_mib(f.func) for k, f in programs.items()}
    return {"seconds": seconds, "gain": ratio, "agreement": agreement, "temporary_mib": memory}


def lines(rows: list[dict]) -> list[str]:
    columns = ["batch", "L", "H", "N", "chosen", "ms", "best", "chosen / best", "gain"]
    cells = [
        [
            r["batch"],
            r["L"],
            r["H"],
            r["N"],
            r["chosen"],
            f"{r['chosen_ms']:.1f}",
            r["best"],
            f"{r['chosen_over_best']:.2f}",
            f"{r['gain']:.1f}",
        ]
        for r in rows
    ]
    ratios = sorted(r["chosen_over_best"] for r in rows)
    return [
        "u -> y for a batch, forward and backward. Gain: against the associative scan over the "
        "whole length, with its states made again in the backward pass.",
        "",
        *table(columns, cells),
        "",
        f"Chosen over best: median {np.median(ratios):.2f}, worst {ratios[-1]:.2f}; "
        f"{sum(r <= 1.2 for r in ratios)} of {len(ratios)} cells within 20 %. Outputs and gradients"
        f" of our forms are within {max(r['agreement'] for r in rows):.0e} of those in double "
        f"precision (each array's largest error, over its largest entry), the associative scan's "
        f"within {max(r['oracle_agreement'] for r in rows):.0e}.",
    ]


def lines_recurrence(recurrence: dict) -> list[str]:
    seconds = {name: 1e3 * times["median"] for name, times in recurrence["seconds"].items()}
    return [
        "`linear_recurrence` of 4096 real states, batch 4, 1024 samples, forward and backward: "
        f"{seconds['ours']:.0f} ms; {seconds['associative']:.0f} ms for the associative scan with "
        f"autodiff ({recurrence['gain']:.1f} times), outputs and gradients within "
        f"{recurrence['agreement']:.0e}. To read and write what both passes have to, without a "
        f"recurrence, takes {seconds['streams']:.0f} ms.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two small cells, written nowhere")
    parser.add_argument("--recurrence", action="store_true", help="the time-varying one alone")
    parser.add_argument("--fit", action="store_true", help="fit the cost model")
    options = parser.parse_args()
    if options.fit:
        write_fit([measure(*size, options.repeats, within=30) for size in FIT])
        return
    recurrence = time_varying(64 if options.quick else 1024, options.repeats)
    if not options.quick:
        write("time_varying" + CORES, recurrence, lines_recurrence(recurrence), made_by="layer")
    if options.recurrence:
        return
    rows = [measure(*size, options.repeats) for size in sizes(options.quick)]
    if options.quick:
        print("\n".join([*lines(rows), "", *lines_recurrence(recurrence)]))
    else:
        write("layer" + CORES, {"cells": rows}, lines(rows), made_by="layer")
    wrong = [r for r in [*rows, recurrence] if r["agreement"] > 1e-4]
    assert not wrong, wrong


if __name__ == "__main__":
    main()
