"""Training steps and scans of selective layers, at states that a cut goes through.

    python benchmarks/selective_scan.py [--quick]

A language model of two layers (d_model 64, d_inner 128), 16 sequences of 256 tokens, AdamW; the
scan alone, forward and backward, is timed at the shape that a layer of it has. All sizes take turns
in one process. Writes `results/selective_scan.json` and `results/selective_scan.md`.
"""

import argparse
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import alternate, table, write

from zoo import BATCH_AXIS, Mamba2Config, MambaConfig, language_model, selective_scan

BATCH, L, D_MODEL, BLOCKS, VOCABULARY = 16, 256, 64, 2, 65
D_INNER = 2 * D_MODEL


def training_step(config):
    """A jitted AdamW step and its arguments."""
    model, state = language_model(
        lambda key: config.build(D_MODEL, key=key),
        vocabulary=VOCABULARY,
        d_model=D_MODEL,
        blocks=BLOCKS,
        key=jax.random.key(0),
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = optax.adamw(1e-3)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, L + 1)))

    def loss_of(params):
        logits, _ = jax.vmap(
            eqx.combine(params, static), in_axes=(0, None), out_axes=(0, None), axis_name=BATCH_AXIS
        )(tokens[:, :-1], state)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return losses.mean()

    @jax.jit
    def step(params, opt_state):
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return partial(step, params, optimizer.init(params))


def scan_alone(N: int):
    """A jitted forward and backward pass of the scan of one layer, all gradients."""
    rng = np.random.default_rng(0)
    A = -np.exp(rng.uniform(0, np.log(16), (D_INNER, N)))
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (BATCH, L, D_INNER)))
    x, dy = rng.normal(size=(2, BATCH, L, D_INNER))
    B, C = rng.normal(size=(2, BATCH, L, N))
    arguments = [jnp.asarray(a, jnp.float32) for a in (A, x, dt, B, C)]
    weights = jnp.asarray(dy, jnp.float32)

    def loss(A, *signals):
        y = jax.vmap(lambda x, dt, B, C: selective_scan(x, dt, A, B, C)[0])(*signals)
        return jnp.sum(weights * y)

    return partial(jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))), *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two sizes, two repeats")
    quick = parser.parse_args().quick
    sizes = [16, 8] if quick else [64, 32, 16, 8]
    jobs = {("scan", N): scan_alone(N) for N in sizes}
    jobs |= {("mamba", N): training_step(MambaConfig(d_state=N)) for N in sizes}
    jobs |= {("mamba2", N): training_step(Mamba2Config(d_state=N)) for N in sizes}
    seconds = alternate(jobs, 2 if quick else 11)
    first = sizes[0]
    rows = [
        [
            N,
            *(f"{1e3 * seconds[kind, N]['median']:.1f}" for kind in ("scan", "mamba", "mamba2")),
            f"{seconds['scan', N]['median'] / seconds['scan', first]['median'] * first / N:.2f}",
        ]
        for N in sizes
    ]
    columns = ["N", "scan of a layer [ms]", "Mamba step [ms]", "Mamba-2 step [ms]", "scan / N"]
    lines = [
        "# Selective layers: time by state",
        "",
        f"Medians. Training step of {BLOCKS} layers, d_model {D_MODEL}, d_inner {D_INNER}, batch "
        f"{BATCH} x {L}; the scan alone forward and backward. The last column is the scan's time "
        f"per state, relative to that at N = {first}.",
        "",
        *table(columns, rows),
    ]
    content = [{"job": kind, "N": N, **times} for (kind, N), times in seconds.items()]
    write("selective_scan", {"batch": BATCH, "L": L, "d_model": D_MODEL, "rows": content}, lines)


if __name__ == "__main__":
    main()
