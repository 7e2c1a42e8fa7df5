"""Whole training steps, ours against the same network on an autodiffed associative scan.

    python benchmarks/step.py [--only SETTING] [--quick]

Forward, backward, AdamW, BatchNorm and dropout, at the sizes before and after shrinks, alternating
in one process, against two baselines: the network as public packages write it (`public.py`), and
ours with only its layer replaced. Loss and gradients of a first step without dropout, whose random
bits differ, must agree to 1e-4. Writes `results/step.json` and `results/step.md`; with `--only`,
the other settings' rows stay as they are.
"""

import argparse
import json
import os
from dataclasses import replace

import jax
from harness import RESULTS, alternate, difference, table, write
from programs import LAYERS, Program, Setting

from training.environment import describe_environment

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
QUICK = {"quick": (Setting(blocks=1, d_model=8, L=100, batch=4), (16, 4))}


def measure(name: str, setting: Setting, states: tuple[int, ...], repeats: int) -> list[dict]:
    """One row for each number of states, all programs taking turns."""
    agreement = {n: agree(replace(setting, dropout=0.0), n) for n in states}
    programs = {(n, layer): Program(setting, n, layer) for n in states for layer in LAYERS}
    seconds = alternate(programs, repeats)
    environment = describe_environment()
    rows = []
    for n in states:
        times = {layer: seconds[n, layer] for layer in LAYERS}
        memory = {layer: programs[n, layer].temporary_mib for layer in LAYERS}
        ours = times["ours"]["median"]
        rows.append(
            {
                "setting": name,
                "d_state": n,
                **vars(setting),
                "seconds": times,
                "gain": times["public"]["median"] / ours,
                "gain_of_the_layer": times["layer"]["median"] / ours,
                "faster_by_shrinking": seconds[states[0], "ours"]["median"] / ours,
                "temporary_mib": memory,
                "memory_share": memory["ours"] / memory["public"],
                "agreement": agreement[n],
                "environment": environment,
                "load_average": os.getloadavg()[0],
            }
        )
    return rows


def agree(setting: Setting, n: int) -> float:
    """How far loss and gradients of the first step lie apart."""
    first = {}
    for layer in ("ours", "public"):
        program = Program(setting, n, layer)
        jax.block_until_ready(program())
        first[layer] = program.loss_and_gradient()
    return difference(first["ours"], first["public"])


def lines(rows: list[dict]) -> list[str]:
    def milliseconds(s: dict) -> str:
        return f"{1e3 * s['median']:.1f} ({1e3 * s['low']:.1f}-{1e3 * s['high']:.1f})"

    cells = [
        [
            f"{r['setting']}: {r['blocks']} x H={r['d_model']}, L={r['L']}, batch {r['batch']}",
            r["d_state"],
            milliseconds(r["seconds"]["ours"]),
            milliseconds(r["seconds"]["public"]),
            f"{r['gain']:.1f}",
            f"{r['gain_of_the_layer']:.1f}",
            f"{r['faster_by_shrinking']:.2f}",
            f"{r['temporary_mib']['ours']:.0f}",
            f"{r['memory_share']:.2f}",
        ]
        for r in rows
    ]
    columns = ["setting", "N", "ours, ms", "associative scan, ms", "gain", "of it the layer"]
    return [
        "Whole training steps: median and quartiles. Gain: times faster than the same network on "
        "an autodiffed associative scan, as public packages write it. Of it the layer: times "
        "faster than our own network with only its layer replaced. Against first N: how much "
        "a shrink speeds our step up. Memory: temporary buffers of the compiled step, and their "
        "share of the baseline's.",
        "",
        *table([*columns, "against first N", "memory, MiB", "share"], cells),
        "",
        "Without dropout, loss and all gradients of the first step agree to "
        f"{max(r['agreement'] for r in rows):.0e}, relative. Load average while each setting was "
        f"measured: {min(r['load_average'] for r in rows):.1f} to "
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
    if options.only and (RESULTS / "step.json").exists():
        before = json.loads((RESULTS / "step.json").read_text())["rows"]
        rows = [row for row in before if row["setting"] != options.only]
    for name, (setting, states) in settings.items():
        rows += measure(name, setting, states, options.repeats)
    wrong = [r for r in rows if r["agreement"] > 1e-4]
    assert not wrong, wrong
    if options.quick:
        print("\n".join(lines(rows)))
    else:
        rows.sort(key=lambda row: list(SETTINGS).index(row["setting"]))
        write("step", {"rows": rows}, lines(rows))


if __name__ == "__main__":
    main()
