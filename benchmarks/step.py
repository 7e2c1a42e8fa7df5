"""Whole training steps, ours against the same network on an autodiffed associative scan.

    python benchmarks/step.py [--only SETTING] [--quick]

Forward, backward, AdamW, BatchNorm and dropout, at the sizes before and after shrinks, alternating
in one process, against two baselines: the network as public packages write it (`public.py`), and
ours with only its layer replaced. Loss and gradients of a first step without dropout, whose random
bits differ, must be within 1e-4 of those of an associative scan in double precision, or nearer to
them than the baseline's own in single precision. Writes `results/step.json` and `results/step.md`
after every setting; the rows of those that are not measured stay as they are.
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from typing import Any

import jax
from harness import RESULTS, alternate, difference, milliseconds, table, write
from programs import LAYERS, Program, Setting

from training.reporting.environment import describe_environment

SETTINGS: dict[str, tuple[Setting, tuple[int, ...]]] = {
    "smnist": (Setting(blocks=1, d_model=8, L=784, batch=50), (256, 28)),
    "six blocks": (Setting(blocks=6, d_model=128, L=1024, batch=4), (256, 82)),
    "scifar-like": (Setting(blocks=2, d_model=512, L=1024, batch=2, channels=3), (384, 93)),
    "imdb-like": (Setting(blocks=1, d_model=256, L=4096, batch=4, classes=2), (192, 64)),
    "pathfinder-like": (
        Setting(blocks=2, d_model=192, L=1024, batch=4, classes=2, dropout=0.0),
        (256, 64),
    ),
}
STEPS = 4
"""Training steps in a dispatch. The training loop has up to `loop.steps_per_dispatch`."""
ALONE = ", one step a dispatch"
QUICK = {"quick": (Setting(blocks=1, d_model=8, L=100, batch=4), (16, 4))}


def measure(name: str, setting: Setting, states: tuple[int, ...], repeats: int) -> list[dict]:
    """One row for each number of states, all programs taking turns."""
    agreement = {n: agree(replace(setting, dropout=0.0), n) for n in states}
    together = {(n, layer): STEPS for n in states for layer in LAYERS}
    alone = {(n, layer + ALONE): 1 for n in states for layer in ("ours", "public")}
    steps = together | alone
    programs = {
        (n, name): Program(setting, n, name.removesuffix(ALONE), count)
        for (n, name), count in steps.items()
    }
    seconds = {
        name: {quantile: each / steps[name] for quantile, each in dispatch.items()}
        for name, dispatch in alternate(programs, repeats).items()
    }
    environment = describe_environment()
    rows = []
    for n in states:
        times = {name: seconds[n, name] for (m, name) in programs if m == n}
        memory = {layer: programs[n, layer].temporary_mib for layer in LAYERS}
        median = {name: each["median"] for name, each in times.items()}
        ours = median["ours"]
        rows.append(
            {
                "setting": name,
                "d_state": n,
                **vars(setting),
                "seconds": times,
                "gain": median["public"] / ours,
                "gain_one_by_one": median["public" + ALONE] / median["ours" + ALONE],
                "gain_over_one_by_one": median["public" + ALONE] / ours,
                "gain_of_the_layer": median["layer"] / ours,
                "faster_by_shrinking": seconds[states[0], "ours"]["median"] / ours,
                "temporary_mib": memory,
                "memory_share": memory["ours"] / memory["public"],
                **agreement[n],
                "environment": environment,
                "load_average": os.getloadavg()[0],
            }
        )
    return rows


def agree(setting: Setting, n: int) -> dict[str, float]:
    """How far loss and gradients of the first step lie apart, and from those in double precision"""

    def first(layer: str) -> Any:
        program = Program(setting, n, layer)
        jax.block_until_ready(program())
        return program.loss_and_gradient()

    ours, theirs = first("ours"), first("public")
    with jax.enable_x64(True):
        exact = first("layer")  # Equinox's BatchNorm has no double precision
    return {
        "agreement": difference(ours, theirs),
        "error": difference(ours, exact),
        "public_error": difference(theirs, exact),
    }


def lines(rows: list[dict]) -> list[str]:
    cells = [
        [
            f"{r['setting']}: {r['blocks']} x H={r['d_model']}, L={r['L']}, batch {r['batch']}",
            r["d_state"],
            milliseconds(r["seconds"]["ours"]),
            milliseconds(r["seconds"]["public"]),
            f"{r['gain']:.1f}",
            f"{r['gain_of_the_layer']:.1f}",
            milliseconds(r["seconds"]["public" + ALONE]),
            f"{r['gain_over_one_by_one']:.1f}",
            f"{r['gain_one_by_one']:.1f}",
            f"{r['faster_by_shrinking']:.2f}",
            f"{r['temporary_mib']['ours']:.0f}",
            f"{r['memory_share']:.2f}",
        ]
        for r in rows
    ]
    columns = ["setting", "N", "ours, ms", "associative scan, ms", "gain", "of it the layer"]
    columns += ["one by one, ms", "gain over it", "both one by one"]
    return [
        f"Whole training steps, {STEPS} to a dispatch: median and quartiles. Gain: times faster "
        "than the same network on an autodiffed associative scan, as public packages write it. Of "
        "it the layer: times faster than our own network with only its layer replaced. One by one: "
        "the baseline with a dispatch for each step, as public training scripts have it; how much "
        "faster ours is than that, and how much if both do so. All of them keep the memory that "
        "they free (`training/run/memory.py`). Against first N: how much a shrink speeds our "
        "step up. Memory: temporary buffers of the compiled step, and their share of the "
        "baseline's.",
        "",
        *table([*columns, "against first N", "memory, MiB", "share"], cells),
        "",
        "Without dropout, loss and all gradients of the first step are within "
        f"{max(r['error'] for r in rows):.1e} of those of an associative scan in double precision, "
        f"relative to the largest entry of each array; the baseline's own in single precision "
        f"within {max(r['public_error'] for r in rows):.1e}, and both apart by at most "
        f"{max(r['agreement'] for r in rows):.1e}. Load average while each setting was measured: "
        f"{min(r['load_average'] for r in rows):.1f} to "
        f"{max(r['load_average'] for r in rows):.1f}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", choices=SETTINGS, help="one setting")
    parser.add_argument("--quick", action="store_true", help="a small setting: does it run?")
    options = parser.parse_args()
    settings = QUICK if options.quick else SETTINGS
    if options.only:
        settings = {options.only: SETTINGS[options.only]}
    rows = []
    if not options.quick and (RESULTS / "step.json").exists():
        rows = json.loads((RESULTS / "step.json").read_text())["rows"]
    for name, (setting, states) in settings.items():
        rows = [row for row in rows if row["setting"] != name]
        rows += measure(name, setting, states, options.repeats)
        if options.quick:
            print("\n".join(lines(rows)))
            continue
        rows.sort(key=lambda row: list(SETTINGS).index(row["setting"]))
        write("step", {"rows": rows}, lines(rows))
    if wrong := [row for row in rows if row["error"] > max(1e-4, row["public_error"])]:
        sys.exit(f"loss and gradients are not the baseline's: {wrong}")


if __name__ == "__main__":
    main()
