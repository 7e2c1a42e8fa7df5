"""Time and memory of a training step against the length, the states, the channels and the batch.

    python benchmarks/scaling.py [--quick]

One block, ours and the same model on an autodiffed associative scan where that fits into
`MEMORY_MIB`. Writes `results/scaling.json`, `results/scaling.md` and `results/scaling.png`.
"""

import argparse
from dataclasses import replace

import jax
import matplotlib
from harness import RESULTS, alternate, table, write
from programs import Program, Setting

MEMORY_MIB = 4096
COMPARED = {"ours": "ours", "public": "associative scan"}
BASE = Setting(blocks=1, d_model=64, L=2048, batch=1, dropout=0.0)
N = 64
SWEEPS: dict[str, list[tuple[Setting, int]]] = {
    "L": [(replace(BASE, L=4**k), N) for k in range(5, 9)],
    "N": [(BASE, n) for n in (16, 64, 256, 1024, 4096)],
    "H": [(replace(BASE, d_model=h), N) for h in (8, 32, 128, 512)],
    "batch": [(replace(BASE, batch=b), N) for b in (1, 4, 16)],
}
QUICK = {"L": [(replace(BASE, L=length, d_model=8), 8) for length in (64, 256)]}


def measure(sweep: str, setting: Setting, d_state: int, repeats: int) -> list[dict]:
    programs = {layer: Program(setting, d_state, layer) for layer in COMPARED}
    memory = {layer: program.temporary_mib for layer, program in programs.items()}
    fitting = {k: program for k, program in programs.items() if memory[k] <= MEMORY_MIB}
    seconds = alternate(fitting, repeats)
    size = {"L": setting.L, "N": d_state, "H": setting.d_model, "batch": setting.batch}
    del programs, fitting
    jax.clear_caches()
    return [
        {
            "sweep": sweep,
            "value": size[sweep],
            **size,
            "layer": layer,
            "seconds": seconds.get(layer),
            "temporary_mib": memory[layer],
        }
        for layer in COMPARED
    ]


def lines(rows: list[dict]) -> list[str]:
    def cells(row: dict) -> list:
        time = "not run" if row["seconds"] is None else f"{1e3 * row['seconds']['median']:.1f}"
        memory = f"{row['temporary_mib']:.0f}"
        return [*(row[k] for k in ("sweep", "L", "N", "H", "batch", "layer")), time, memory]

    columns = ["sweep", "L", "N", "H", "batch", "layer", "step, ms", "memory, MiB"]
    return [
        "A training step of one block; the baseline is not run where it takes more than "
        f"{MEMORY_MIB} MiB of temporary memory.",
        "",
        *table(columns, [cells(row) for row in rows]),
    ]


def plot(rows: list[dict]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    figure, axes = pyplot.subplots(2, len(sweeps), figsize=(3.2 * len(sweeps), 5), squeeze=False)
    for column, sweep in zip(axes.T, sweeps, strict=True):
        for layer, label in COMPARED.items():
            chosen = [r for r in rows if r["sweep"] == sweep and r["layer"] == layer]
            timed = [r for r in chosen if r["seconds"]]
            values = [r["value"] for r in timed]
            column[0].loglog(values, [1e3 * r["seconds"]["median"] for r in timed], "o-")
            column[1].loglog(
                [r["value"] for r in chosen],
                [r["temporary_mib"] for r in chosen],
                "o-",
                label=label,
            )
        column[1].set_xlabel(sweep)
    axes[0, 0].set_ylabel("step [ms]")
    axes[1, 0].set_ylabel("temporary memory [MiB]")
    axes[1, 0].legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "scaling.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two small sizes, written nowhere")
    options = parser.parse_args()
    rows = []
    for sweep, sizes in (QUICK if options.quick else SWEEPS).items():
        for setting, d_state in sizes:
            rows += measure(sweep, setting, d_state, options.repeats)
    if options.quick:
        print("\n".join(lines(rows)))
    else:
        write("scaling", {"rows": rows}, lines(rows))
        plot(rows)


if __name__ == "__main__":
    main()
