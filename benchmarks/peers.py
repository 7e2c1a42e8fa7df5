"""Our LRU layer beside discretax's, on the same parameters and inputs.

    git clone https://github.com/camail-official/discretax
    PYTHONPATH=discretax/src python benchmarks/peers.py

Forward and backward pass of a batch, all gradients, taking turns in one process, at the shapes of
the paper's settings and after their shrinks. discretax (before: linax) is the library of the
paper's authors; its layer needs jax and equinox alone. Writes `results/peers.json` and
`results/peers.md`.
"""

import argparse
import importlib.util
import os
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from harness import PAPER, alternate, difference, milliseconds, table, temporary_mib, write

from zoo import LRU

SIZES = [*PAPER, (4, 4096, 256, 64)]
QUICK = [(4, 100, 8, 16)]


def measure(batch: int, L: int, H: int, N: int, repeats: int) -> dict[str, Any]:
    """One row: both layers, and how far their losses and gradients lie apart."""
    from discretax.sequence_mixers.lru import (  # pyright: ignore[reportMissingImports]
        LRUSequenceMixer,
    )

    key = jax.random.key(0)
    theirs = LRUSequenceMixer(H, key, state_dim=N, r_min=0.9, r_max=0.999)
    names = [name for name in vars(theirs) if eqx.is_array(getattr(theirs, name))]
    ours = LRU(**{name: getattr(theirs, name) for name in names})
    u = jnp.asarray(np.random.default_rng(0).normal(size=(batch, L, H)), jnp.float32)

    @eqx.filter_value_and_grad
    def our_loss(arguments):
        layer, u = arguments
        return jnp.mean(jax.vmap(layer)(u) ** 2)

    @eqx.filter_value_and_grad
    def their_loss(arguments):
        layer, u = arguments
        return jnp.mean(jax.vmap(lambda x: layer(x, key))(u) ** 2)

    programs = {
        "ours": (eqx.filter_jit(our_loss).lower((ours, u)).compile(), ours),
        "theirs": (eqx.filter_jit(their_loss).lower((theirs, u)).compile(), theirs),
    }
    loss, (grads, du) = programs["ours"][0]((ours, u))
    their, (their_grads, their_du) = programs["theirs"][0]((theirs, u))
    apart = difference(
        [loss, du, *(getattr(grads, name) for name in names)],
        [their, their_du, *(getattr(their_grads, name) for name in names)],
    )
    seconds = alternate(
        {
            name: lambda program=program, layer=layer: program((layer, u))
            for name, (program, layer) in programs.items()
        },
        repeats,
    )
    memory = {name: temporary_mib(program.compiled) for name, (program, _) in programs.items()}
    return {
        "size": [batch, L, H, N],
        "seconds": seconds,
        "gain": seconds["theirs"]["median"] / seconds["ours"]["median"],
        "temporary_mib": memory,
        "memory_share": memory["ours"] / memory["theirs"],
        "agreement": apart,
        "load_average": os.getloadavg()[0],
    }


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table, in Markdown."""
    cells = [
        [
            *row["size"],
            milliseconds(row["seconds"]["ours"]),
            milliseconds(row["seconds"]["theirs"]),
            f"{row['gain']:.1f}",
            f"{row['memory_share']:.2f}",
            f"{row['agreement']:.0e}",
        ]
        for row in rows
    ]
    columns = ["batch", "L", "H", "N", "ours, ms", "discretax, ms", "gain", "share of the memory"]
    return [
        "An LRU layer, forward and backward, as discretax has it and as ours is, on the same "
        "parameters and inputs: median and quartiles. The last column is the largest difference of "
        "loss and gradients, relative to the largest entry of each array.",
        "",
        *table([*columns, "apart"], cells),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="a small size; writes no results")
    options = parser.parse_args()
    if importlib.util.find_spec("discretax") is None:
        sys.exit("error: no module discretax: put the src folder of a clone of it on PYTHONPATH")
    rows = [measure(*size, options.repeats) for size in (QUICK if options.quick else SIZES)]
    if options.quick:
        print("\n".join(lines(rows)))
    else:
        write("peers", {"rows": rows}, lines(rows))
    apart = [row for row in rows if row["agreement"] > 1e-4]
    assert not apart, apart


if __name__ == "__main__":
    main()
