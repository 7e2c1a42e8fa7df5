"""The recurrence of linear attention: the kernel against chunks of XLA and a loop of XLA.

    python benchmarks/attention.py [--quick]

One layer's recurrence at d_model 128, 2 heads of K keys and V = 64 values, 8 sequences of 1024
samples; forward alone, and forward and backward with all gradients. The loop is `jax.lax.scan` over
time under automatic differentiation. Then the kernel at fewer keys and at other lengths, and whole
training steps of a language model of two such layers. All take turns in one process, for seven
minutes. Writes `results/attention.json` and `results/attention.md`.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import alternate, milliseconds, table, write
from selective_scan import training_step

from zoo import DeltaNetConfig, GatedDeltaNetConfig, GLAConfig, RetNetConfig, attention_scan
from zoo.recurrence.attention_forms import Drive, delta_chunks, gated_chunks, one_sample

D_MODEL, BATCH, L, HEADS, K, V = 128, 8, 1024, 2, 64, 64
KINDS = ("alike", "gated", "delta")
CHUNK = {"alike": 64, "gated": 16, "delta": 64}
LAYERS = {
    "RetNet": RetNetConfig,
    "GLA": GLAConfig,
    "DeltaNet": DeltaNetConfig,
    "Gated DeltaNet": GatedDeltaNetConfig,
}


MAPPED = ("DeltaNet", "Gated DeltaNet")
"""Layers that a cut in training leaves their channels, with maps to fewer keys behind them."""


@dataclass(frozen=True)
class Mapped:
    """The settings of a layer that was cut to so many `keys` by maps."""

    settings: Any
    keys: int

    def build(self, d_model: int, *, key: Any) -> Any:
        return self.settings.build(d_model, key=key).with_maps().first_states(self.keys)


def signals(kind: str, length: int = L, keys: int = K):
    """q, k, v, log_decay and beta (None without the delta rule) of a batch."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, BATCH, length, HEADS, keys))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    v = rng.normal(size=(BATCH, length, HEADS, V))
    each = keys if kind == "gated" else 1
    log_decay = -np.exp(rng.uniform(np.log(1e-3), 0, (BATCH, length, HEADS, each)))
    beta = rng.uniform(size=(BATCH, length, HEADS)) if kind == "delta" else None
    arrays = (q, k, v, log_decay, beta)
    return tuple(None if a is None else jnp.asarray(a, jnp.float32) for a in arrays)


def by_kernel(q, k, v, g, beta):
    axes = tuple(None if a is None else 0 for a in (q, k, v, g, beta))
    return jax.vmap(attention_scan, in_axes=axes)(q, k, v, g, beta)[0]


def by_chunks(q, k, v, g, beta):
    kind = "delta" if beta is not None else "alike" if g.shape[-1] == 1 else "gated"
    form = gated_chunks if beta is None else delta_chunks
    S0 = jnp.zeros((len(q), HEADS, q.shape[-1], V))
    return form(Drive(q, k, v, g, beta), S0, CHUNK[kind])[0]


def by_loop(q, k, v, g, beta):
    """`jax.lax.scan` over time, whose derivative keeps the states of all samples."""
    rows = [None if a is None else jnp.moveaxis(a, 1, 0) for a in (q, k, v, g, beta)]
    S0 = jnp.zeros((len(q), HEADS, q.shape[-1], V))
    _, o = jax.lax.scan(lambda S, row: one_sample(S, *row), S0, tuple(rows))
    return jnp.moveaxis(o, 0, 1)


FORMS = {"kernel": by_kernel, "chunks": by_chunks, "loop": by_loop}


def job(form, kind: str, backward: bool, **sizes: int):
    """A jitted pass over a batch."""
    given = signals(kind, **sizes)
    if not backward:
        return partial(jax.jit(form), *given)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=given[2].shape), jnp.float32)
    places = tuple(i for i, a in enumerate(given) if a is not None)
    loss = lambda *arrays: jnp.sum(weights * form(*arrays))  # noqa: E731
    return partial(jax.jit(jax.grad(loss, argnums=places)), *given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the delta rule, written nowhere")
    quick = parser.parse_args().quick
    kinds, repeats = (KINDS[-1:], 2) if quick else (KINDS, 7)
    forms = {
        (name, kind, backward): job(form, kind, backward)
        for name, form in FORMS.items()
        for kind in kinds
        for backward in (False, True)
    }
    sizes = {("keys", n): job(by_kernel, "delta", True, keys=n) for n in (64, 48, 32, 16)}
    lengths = {("length", n): job(by_kernel, "delta", False, length=n) for n in (512, 1024, 2048)}
    jobs = forms | sizes | lengths
    if not quick:
        for name, config in LAYERS.items():
            for keys in (K, K // 2):
                settings = config(d_state=keys, heads=HEADS, expand=HEADS * V // D_MODEL)
                jobs["layer", name, keys] = training_step(settings, BATCH, L, D_MODEL)
                if keys == K and name in MAPPED:
                    jobs["layer", name, "maps"] = training_step(
                        Mapped(settings, K // 2), BATCH, L, D_MODEL
                    )
    seconds = alternate(jobs, repeats)
    lines = ["# Linear attention: kernel, chunks, loop", ""]
    lines += [
        f"Medians (quartiles) [ms]. {BATCH} sequences of {L} samples, {HEADS} heads, K = {K}, "
        f"V = {V}, float32.",
        "",
    ]
    rows = []
    for kind in kinds:
        for backward in (False, True):
            each = [seconds[name, kind, backward] for name in FORMS]
            medians = [t["median"] for t in each]
            rows.append(
                [
                    kind,
                    "forward and backward" if backward else "forward",
                    *(milliseconds(t) for t in each),
                    f"{medians[1] / medians[0]:.1f}",
                    f"{medians[2] / medians[0]:.1f}",
                ]
            )
    lines += table(["decay", "pass", *FORMS, "chunks / kernel", "loop / kernel"], rows)
    lines += ["", "By keys of a head, forward and backward, delta rule:", ""]
    lines += table(["K", "ms"], [[n, milliseconds(seconds["keys", n])] for _, n in sizes])
    lines += ["", "By length, forward, delta rule:", ""]
    lines += table(["L", "ms"], [[n, milliseconds(seconds["length", n])] for _, n in lengths])
    if not quick:
        lines += ["", f"Training step of two layers, d_model {D_MODEL}:", ""]
        whole = []
        for name in LAYERS:
            large, *others = (seconds.get(("layer", name, keys)) for keys in (K, K // 2, "maps"))
            cells = [name, milliseconds(large)]
            for small in others:
                times = small and f"{large['median'] / small['median']:.2f}"
                cells += ["", ""] if small is None else [milliseconds(small), times]
            whole.append(cells)
        columns = ["layer", f"K = {K}", f"K = {K // 2}", "times faster"]
        lines += table([*columns, f"maps from {K} to {K // 2}", "times faster"], whole)
    if quick:
        print("\n".join(lines))
    else:
        found = [{"job": " ".join(map(str, name)), **times} for name, times in seconds.items()]
        write("attention", {"batch": BATCH, "L": L, "K": K, "V": V, "rows": found}, lines)


if __name__ == "__main__":
    main()
