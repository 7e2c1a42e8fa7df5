"""Training steps by their precision, with and without the tiles of a CPU (AMX).

    python benchmarks/tiles.py [--repeats N] [--quick]

The networks of `step.py`: forward, backward, AdamW, BatchNorm and dropout, four steps to a
dispatch, alternating in one process. Then the recurrence of one layer alone, forward and backward,
beside the form that single precision takes. Writes `results/tiles.json` and `results/tiles.md`.
"""

import argparse
import os
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from harness import alternate, milliseconds, table, write
from programs import Program, Setting
from step import QUICK, SETTINGS, STEPS

from zoo.layers.half import Precision, computed_in
from zoo.recurrence.compiled import has_tiles
from zoo.recurrence.linear import lti_apply

STEPPED = ("six blocks", "scifar-like")
LAYERS = [
    # batch, L, channels, states
    (4, 1024, 128, 256),
    (4, 1024, 128, 82),
    (2, 1024, 512, 384),
    (16, 1024, 32, 64),
]
WAYS: dict[str, tuple[Precision, bool]] = {
    # of a training step, and whether it has tiles
    "float32": ("float32", False),
    "bf16 without tiles": ("bf16", False),
    "bf16": ("bf16", True),
    "bf16-systems": ("bf16-systems", True),
}


def step(setting: Setting, n: int, way: str) -> Program:
    """A compiled training step."""
    precision, tiles = WAYS[way]
    with mock.patch("zoo.recurrence.linear.has_tiles", return_value=tiles):
        return Program(setting, n, "ours", STEPS, precision)


def layer(batch: int, L: int, channels: int, n: int, way: str) -> Any:
    """A compiled gradient of a system's outputs by all that it depends on."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    log_lam = jax.lax.complex(-jnp.exp(normal(n) - 4), normal(n))
    B = jax.lax.complex(normal(n, channels), normal(n, channels)) / np.sqrt(2 * channels)
    C = jax.lax.complex(normal(channels, n), normal(channels, n)) / np.sqrt(n)
    precision, tiles = WAYS[way]
    u = computed_in(normal(batch, L, channels), "bf16" if precision != "float32" else "float32")

    def loss(arrays: Any) -> Any:
        log_lam, B, C, u = arrays
        y = jax.vmap(lambda u: lti_apply(log_lam, B, C, u)[0])(u)
        return jnp.sum(jnp.tanh(y))

    with mock.patch("zoo.recurrence.linear.has_tiles", return_value=tiles):
        arrays = (log_lam, B, C, u)
        compiled = jax.jit(jax.grad(loss)).lower(arrays).compile()
    return lambda: compiled(arrays)


def measure(name: str, programs: dict[str, Any], steps: int, repeats: int) -> dict[str, Any]:
    seconds = {
        way: {quantile: each / steps for quantile, each in times.items()}
        for way, times in alternate(programs, repeats).items()
    }
    single = seconds["float32"]["median"]
    return {
        "name": name,
        "seconds": seconds,
        "faster": {way: single / each["median"] for way, each in seconds.items()},
        "load_average": os.getloadavg()[0],
    }


def cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{milliseconds(row['seconds'][way])}, {row['faster'][way]:.2f}"
        if way in row["seconds"]
        else ""
        for way in WAYS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a small setting, nothing is written")
    options = parser.parse_args()
    jax.devices()
    if not has_tiles():
        raise SystemExit("this CPU has no tiles (AMX), or there is no kernel for them")
    settings = QUICK if options.quick else {name: SETTINGS[name] for name in STEPPED}
    rows = []
    for name, (setting, states) in settings.items():
        for n in states:
            programs = {way: step(setting, n, way) for way in WAYS}
            title = f"{name}: {setting.blocks} x H={setting.d_model}, N={n}"
            rows.append(measure(title, programs, STEPS, options.repeats))
    for sizes in LAYERS[-1:] if options.quick else LAYERS:
        programs = {way: layer(*sizes, way) for way in ("float32", "bf16")}
        batch, L, channels, n = sizes
        title = f"layer: batch {batch}, L={L}, H={channels}, N={n}"
        rows.append(measure(title, programs, 1, options.repeats))
    lines = [
        f"Milliseconds of a training step, {STEPS} to a dispatch, and of the gradient of a system: "
        "median and quartiles by `--precision`, and how many times faster than float32.",
        "",
        *table(["what", *WAYS], [[row["name"], *cells(row)] for row in rows]),
    ]
    if options.quick:
        print("\n".join(lines))
    else:
        write("tiles", {"rows": rows}, lines)


if __name__ == "__main__":
    main()
