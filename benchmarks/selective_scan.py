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


def training_step(config, batch: int = BATCH, length: int = L, d_model: int = D_MODEL):
    """A jitted AdamW step and its arguments."""
    model, state = language_model(
        lambda key: config.build(d_model, key=key),
        vocabulary=VOCABULARY,
        d_model=d_model,
        blocks=BLOCKS,
        key=jax.random.key(0),
    )
    params, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = optax.adamw(1e-3)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, (batch, length + 1)))

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


def scan_alone(N: int, scan=selective_scan, batch: int = BATCH, length: int = L, d: int = D_INNER):
    """A jitted forward and backward pass of the scan of one layer, all gradients."""
    rng = np.random.default_rng(0)
    A = -np.exp(rng.uniform(0, np.log(16), (d, N)))
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (batch, length, d)))
    x, dy = rng.normal(size=(2, batch, length, d))
    B, C = rng.normal(size=(2, batch, length, N))
    arguments = [jnp.asarray(a, jnp.float32) for a in (A, x, dt, B, C)]
    weights = jnp.asarray(dy, jnp.float32)

    def loss(A, *signals):
        y = jax.vmap(lambda x, dt, B, C: scan(x, dt, A, B, C)[0])(*signals)
        return jnp.sum(weights * y)

    return partial(jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))), *arguments)


def associative(x, dt, A, B, C):
    """The same by `jax.lax.associative_scan`, the states of all samples in memory."""

    def after(earlier, later):
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    decay = jnp.exp(dt[:, :, None] * A)
    _, h = jax.lax.associative_scan(after, (decay, (dt * x)[:, :, None] * B[:, None]))
    return jnp.einsum("ldn,ln->ld", h, C), h[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two sizes, twice, written nowhere")
    quick = parser.parse_args().quick
    sizes = [16, 8] if quick else [64, 32, 16, 8]
    jobs = {("scan", N): scan_alone(N) for N in sizes}
    jobs |= {("mamba", N): training_step(MambaConfig(d_state=N)) for N in sizes}
    jobs |= {("mamba2", N): training_step(Mamba2Config(d_state=N)) for N in sizes}
    shape = {"batch": 4, "length": 1024, "d": 64}
    jobs["associative", 64] = scan_alone(64, associative, **shape)
    jobs["long", 64] = scan_alone(64, **shape)
    seconds = alternate(jobs, 2 if quick else 7)
    slow, fast = (seconds[name, 64]["median"] for name in ("associative", "long"))
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
        "",
        f"4 sequences of 1024 samples, 64 channels of 64 states, forward and backward: "
        f"{1e3 * fast:.0f} ms; by `jax.lax.associative_scan` and its derivative "
        f"{1e3 * slow:.0f} ms ({slow / fast:.1f} times).",
    ]
    rows = [{"job": kind, "N": N, **times} for (kind, N), times in seconds.items()]
    if quick:
        print("\n".join(lines))
    else:
        write("selective_scan", {"batch": BATCH, "L": L, "d_model": D_MODEL, "rows": rows}, lines)


if __name__ == "__main__":
    main()
