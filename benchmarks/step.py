"""Whole training steps, ours against the same model on an autodiffed associative scan.

    python benchmarks/step.py [--quick]

Forward, backward, AdamW, BatchNorm and dropout, at the sizes before and after shrinks, alternating
in one process. Losses and gradients of the first step must agree to 1e-4. Writes
`results/step.json` and `results/step.md`.
"""

import argparse

import jax
from harness import alternate, difference, table, write
from programs import LAYERS, Program, Setting

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
    programs = {(n, layer): Program(setting, n, layer) for n in states for layer in LAYERS}
    agreement = {}
    for n in states:
        first = {}
        for layer in LAYERS:
            jax.block_until_ready(programs[n, layer]())
            first[layer] = programs[n, layer].loss_and_gradient()
        agreement[n] = difference(first["ours"], first["associative"])
    seconds = alternate(programs, repeats)
    rows = []
    for n in states:
        ours, theirs = seconds[n, "ours"], seconds[n, "associative"]
        memory = {layer: programs[n, layer].temporary_mib for layer in LAYERS}
        rows.append(
            {
                "setting": name,
                "d_state": n,
                **vars(setting),
                "seconds": {"ours": ours, "associative": theirs},
                "gain": theirs["median"] / ours["median"],
                "faster_by_shrinking": seconds[states[0], "ours"]["median"] / ours["median"],
                "temporary_mib": memory,
                "memory_share": memory["ours"] / memory["associative"],
                "agreement": agreement[n],
            }
        )
    return rows


def lines(rows: list[dict]) -> list[str]:
    def milliseconds(s: dict) -> str:
        return f"{1e3 * s['median']:.1f} ({1e3 * s['low']:.1f}-{1e3 * s['high']:.1f})"

    cells = [
        [
            f"{r['setting']}: {r['blocks']} x H={r['d_model']}, L={r['L']}, batch {r['batch']}",
            r["d_state"],
            milliseconds(r["seconds"]["ours"]),
            milliseconds(r["seconds"]["associative"]),
            f"{r['gain']:.1f}",
            f"{r['faster_by_shrinking']:.2f}",
            f"{r['temporary_mib']['ours']:.0f}",
            f"{r['memory_share']:.2f}",
        ]
        for r in rows
    ]
    columns = ["setting", "N", "ours, ms", "associative scan, ms", "gain", "against first N"]
    return [
        "Whole training steps: median and quartiles. Gain: times faster than the same model on an "
        "autodiffed associative scan. Against first N: how much a shrink speeds our step up. "
        "Memory: temporary buffers of the compiled step, and their share of the baseline's.",
        "",
        *table([*columns, "memory, MiB", "share"], cells),
        "",
        f"Loss and all gradients of the first step agree to {max(r['agreement'] for r in rows):.0e}"
        ", relative.",
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
    for name, (setting, states) in settings.items():
        rows += measure(name, setting, states, options.repeats)
    wrong = [r for r in rows if r["agreement"] > 1e-4]
    assert not wrong, wrong
    write("step", {"rows": rows}, lines(rows))


if __name__ == "__main__":
    main()
