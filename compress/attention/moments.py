"""Second moments of states, queries and keys of linear attention on data.

With the state S_t of a head, K keys times V values, and o_t = S_t^T q_t, putting U W^T S in the
place of S changes the loss by q^T (I - U W^T) S g, g being the gradient by o. So P = E[S S^T]
replaces the controllability Gramian (what is written), and Q = E[q q^T |g|^2] the observability
Gramian (what is read and changes the loss). Dropping the keys D changes the loss by the sum over D
of c_n = q_n (S g)_n.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from zoo import AbstractLinearAttention
from zoo.recurrence.attention import AttentionSignals, attention_step

from ..linear.data_gramians import counted
from ..model.record import SLICE
from ..numerics.precision import widen

SAMPLES = 4096
"""Most samples that moments are taken over. From more samples, one is drawn from each stretch of
equal length."""

SEQUENCES = 32
"""Fewest sequences that the layer is run on. From more sequences, evenly spread ones are taken
until they have twice as many samples as are needed."""


class KeyMoments(NamedTuple):
    """Second moments of the G key heads of a layer, in double precision. Heads of values that share
    a key head add up."""

    P: Float[np.ndarray, "G K K"]
    """E[S S^T]."""
    Q: Float[np.ndarray, "G K K"]
    """E[q q^T |g|^2], g the gradient by the head's output."""
    keys: Float[np.ndarray, "G K K"]
    """E[k k^T]."""
    parts: Float[np.ndarray, "G K K"]
    """E[c c^T], c = q * (S g). The sum of all entries in D is the mean square of the keys' effect
    on the loss."""


def key_moments(
    layer: AbstractLinearAttention,
    inputs: Any,
    gradients: Any = None,
    lengths: Int[Array | np.ndarray, " b"] | None = None,
) -> KeyMoments:
    """The moments of `layer` on `inputs` [b L d_model].

    `gradients` [b L d_model] are those by its outputs; without them all outputs have equal weight.
    Of padded sequences the first `lengths` samples are used.
    """
    u = np.asarray(inputs, np.float64)
    if gradients is None:
        gradients = np.random.default_rng(0).standard_normal(u.shape)
    counts = counted(u, lengths)
    g = np.where(counts[..., None], np.asarray(gradients, np.float64), 0)
    b, L, _ = u.shape
    most = max(SEQUENCES, -(-2 * SAMPLES // L))
    if b > most:
        rows = np.linspace(0, b - 1, most).round().astype(int)
        u, g, counts, b = u[rows], g[rows], counts[rows], most
    stretch = int(min(L, max(1, np.sum(counts) // SAMPLES)))
    at = np.random.default_rng(0).integers(stretch, size=-(-L // stretch))
    with jax.enable_x64(True):
        wide, total, seen = widen(layer), None, 0.0
        for k in range(0, b, SLICE):
            rows = np.minimum(np.arange(k, k + SLICE), b - 1)
            count = counts[rows] * (np.arange(k, k + SLICE) < b)[:, None]
            sums, number = jax.device_get(_sums(wide, u[rows], g[rows], count.astype(float), at))
            total = sums if total is None else jax.tree.map(np.add, total, sums)
            seen += float(number)
    return KeyMoments(*(np.asarray(x) / max(seen, 1.0) for x in total or ()))


@eqx.filter_jit
def _sums(layer: AbstractLinearAttention, u: Any, g: Any, counts: Any, at: Any) -> Any:
    """The sums behind `KeyMoments` over samples [b L] that count, and how many these are.

    `at` says which sample of each of its stretches is looked at.
    """
    signals = jax.vmap(layer.signals)(u)
    do = _output_gradients(layer, signals, g)
    stretch = -(-u.shape[1] // len(at))

    def stretches(x: Array) -> Array:
        """[b L ...] as [stretches samples b ...], padded with zeros."""
        pad = len(at) * stretch - x.shape[1]
        x = jnp.pad(x, [(0, 0), (0, pad), *[(0, 0)] * (x.ndim - 2)])
        return jnp.moveaxis(x, 0, 1).reshape(len(at), stretch, len(x), *x.shape[2:])

    def advance(S: Array, drive: AttentionSignals) -> Array:
        q, k, v, log_decay, beta, _ = drive
        return jax.vmap(attention_step)(q, k, v, log_decay, beta, S)[1]

    def look(carry: Any, inputs: Any) -> tuple[Any, None]:
        (S, total), (drive, do, count, at) = carry, inputs

        def step(carry: Any, inputs: Any) -> tuple[Any, None]:
            (S, kept), (drive, place) = carry, inputs
            S = advance(S, drive)
            return (S, jnp.where(place == at, S, kept)), None

        (S, kept), _ = jax.lax.scan(step, (S, S), (drive, jnp.arange(stretch)))
        seen = _at_one(kept, drive.q[at], drive.k[at], do[at], count[at])
        return (S, jax.tree.map(jnp.add, total, seen)), None

    K, G = layer.d_state, layer.key_heads
    S = jnp.zeros((len(u), layer.heads, K, layer.values))
    zero = (jnp.zeros((G, K, K)),) * 4, jnp.zeros(())
    inputs = (jax.tree.map(stretches, signals), stretches(do), stretches(counts), at)
    (_, total), _ = jax.lax.scan(look, (S, zero), inputs)
    return total


def _at_one(
    S: Float[Array, "b heads K V"],
    q: Float[Array, "b G K"],
    k: Float[Array, "b G K"],
    do: Float[Array, "b heads V"],
    count: Float[Array, " b"],
) -> tuple[tuple[Array, ...], Float[Array, ""]]:
    """The contribution of one sample of each sequence."""
    b, heads, K, _ = S.shape
    G = q.shape[1]
    S, do = S.reshape(b, G, heads // G, K, -1), do.reshape(b, G, heads // G, -1)
    weights = jnp.sum(do**2, axis=(2, 3)) * count[:, None]
    c = q[:, :, None] * jnp.einsum("bghkv,bghv->bghk", S, do)
    P = jnp.einsum("bghkv,bghlv,b->gkl", S, S, count)
    Q = jnp.einsum("bgk,bgl,bg->gkl", q, q, weights)
    keys = jnp.einsum("bgk,bgl,b->gkl", k, k, count)
    parts = jnp.einsum("bghk,bghl,b->gkl", c, c, count)
    return (P, Q, keys, parts), jnp.sum(count)


def _output_gradients(
    layer: AbstractLinearAttention, signals: AttentionSignals, g: Array
) -> Float[Array, "b L heads V"]:
    """The gradients by the heads' outputs, from those by the layer's."""

    def step(S: Array, sample: Any) -> tuple[Array, Array]:
        o, S = attention_step(*sample, S)  # pyright: ignore[reportCallIssue]
        return S, o

    def of_one(one: AttentionSignals, g: Array) -> Array:
        S = jnp.zeros((layer.heads, layer.d_state, layer.values))
        drive = one.q, one.k, one.v, one.log_decay, one.beta
        _, o = jax.lax.scan(step, S, drive)
        return jax.vjp(lambda o: layer.emit(o, one.gate), o)[1](g)[0]

    return jax.vmap(of_one)(signals, g)
