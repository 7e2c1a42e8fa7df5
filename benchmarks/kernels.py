"""Kernels of CPUs beside the programs of XLA, where they are newer: in double precision, on several
devices, and for several models at once.

    .venv/bin/python benchmarks/kernels.py [--quick]

Each case is the gradient of a layer by its parameters and inputs, with the kernels and with
`COMPRESSM_KERNELS=0`, the two taking turns in one process. Several devices are those that
`--xla_force_host_platform_device_count` makes of one machine, each with its own sequences: they
share its cores.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

CASES = ("one device", "double precision", "several devices", "several models")
DEVICES = 8
MODELS = 4
LAYERS: dict[str, dict[str, Any]] = {
    "lru": {"d_state": 128},
    "mamba": {"d_state": 16},
    "gated_deltanet": {"d_state": 32},
}
BATCH, LENGTH, WIDTH = 16, 1024, 64
QUICK = (8, 64, 8)


def measure(case: str, quick: bool) -> list[dict[str, Any]]:
    """Seconds of each layer with and without kernels, and how far the numbers are apart."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from harness import alternate, difference
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from zoo import LAYERS as CONFIGS

    jax.config.update("jax_enable_x64", case == "double precision")
    batch, length, width = QUICK if quick else (BATCH, LENGTH, WIDTH)
    u = jax.random.normal(jax.random.key(1), (batch, length, width), float)
    if case == "several devices":
        mesh = jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,))
        u = jax.device_put(u, NamedSharding(mesh, PartitionSpec("batch")))

    def program(layer: Any, kernels: str) -> Any:
        arrays, static = eqx.partition(layer, eqx.is_inexact_array)

        def loss(arrays: Any, u: Any) -> Any:
            return jnp.sum(jax.vmap(eqx.combine(arrays, static))(u) ** 2)

        of_models = jax.vmap(loss, in_axes=(0, None)) if case == "several models" else loss
        step = jax.grad(lambda arrays, u: jnp.sum(of_models(arrays, u)), argnums=(0, 1))
        os.environ["COMPRESSM_KERNELS"] = kernels
        compiled = jax.jit(step).lower(arrays, u).compile()
        return lambda: compiled(arrays, u)

    found = []
    for name, sizes in LAYERS.items():
        make = CONFIGS[name](**(sizes | ({"d_state": 8} if quick else {}))).build
        layer = make(width, key=jax.random.key(0))
        if case == "several models":
            keys = jax.random.split(jax.random.key(0), MODELS)
            layer = eqx.filter_vmap(lambda key, make=make: make(width, key=key))(keys)
        jobs = {"kernels": program(layer, "1"), "XLA": program(layer, "0")}
        apart = difference(jobs["kernels"](), jobs["XLA"]())
        times = alternate(jobs, 3 if quick else 15)
        found.append({"case": case, "layer": name, "difference": apart, "seconds": times})
    return found


def in_its_own_process(case: str, quick: bool) -> list[dict[str, Any]]:
    """`measure`, where JAX has as many devices as the case wants."""
    flags = os.environ.get("XLA_FLAGS", "")
    if case == "several devices":
        flags += f" --xla_force_host_platform_device_count={DEVICES}"
    command = [sys.executable, __file__, "--case", case, *["--quick"] * quick]
    settings = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing is written")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(given.case, given.quick)))
        return
    rows = [row for case in CASES for row in in_its_own_process(case, given.quick)]

    from harness import milliseconds, table, write

    batch, length, width = QUICK if given.quick else (BATCH, LENGTH, WIDTH)
    lines = [
        f"Gradient of a layer, {batch} sequences of {length} samples and {width} channels; "
        f"{DEVICES} devices of one machine, {MODELS} models. Median (quartiles), ms.",
        "",
        *table(
            ["case", "layer", "kernels", "XLA", "times faster", "relative difference"],
            [
                [
                    row["case"],
                    row["layer"],
                    milliseconds(row["seconds"]["kernels"]),
                    milliseconds(row["seconds"]["XLA"]),
                    f"{row['seconds']['XLA']['median'] / row['seconds']['kernels']['median']:.2f}",
                    f"{row['difference']:.1e}",
                ]
                for row in rows
            ],
        ),
    ]
    if given.quick:
        print("\n".join(lines))
    else:
        write("kernels", {"rows": rows, "batch": batch, "length": length, "width": width}, lines)


if __name__ == "__main__":
    main()
