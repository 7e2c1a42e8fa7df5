"""The selective scan of Mamba: a diagonal recurrence whose decay, input and output follow the data.

For each channel d with states n,

    h_k[d, n] = exp(dt_k[d] A[d, n]) h_{k-1}[d, n] + dt_k[d] B_k[n] x_k[d]
    y_k[d] = sum_n C_k[n] h_k[d, n]

(Gu & Dao, arXiv 2312.00752, algorithm 2: zero-order hold for A, Euler's rule for B).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .whole_batch import whole_batch

CHUNK = 16
"""Samples between two states that the backward pass finds ready; the others it makes again."""


class Signals(NamedTuple):
    """What drives the states of d channels, in G groups of neighbours that share B and C."""

    x: Float[Array, "*L d"]
    dt: Float[Array, "*L d"]
    B: Float[Array, "*L G N"]
    C: Float[Array, "*L G N"]


def selective_scan(
    x: Float[Array, "L d"],
    dt: Float[Array, "L d"],
    A: Float[Array, "d N"],
    B: Float[Array, "L N"],
    C: Float[Array, "L N"],
    h0: Float[Array, "d N"] | None = None,
) -> tuple[Float[Array, "L d"], Float[Array, "d N"]]:
    """Outputs y of the selective scan from the state `h0` (zero if not given), and the last state.

    A sample with dt = 0 leaves the state as it is. Differentiable in all arguments. One sequence
    per call; `jax.vmap` for a batch, which is then computed as one. The states of all samples are
    never in memory at once, forward or backward.
    """
    dtype = jnp.result_type(x, dt, A, B, C, *([] if h0 is None else [h0]))
    x, dt, A, B, C = (jnp.asarray(a, dtype) for a in (x, dt, A, B, C))
    h0 = jnp.zeros(A.shape, dtype) if h0 is None else jnp.asarray(h0, dtype)
    y, h = _scan(A, x[None], dt[None], B[None], C[None], h0[None])
    return y[0], h[0]


def selective_step(
    x: Float[Array, " d"],
    dt: Float[Array, " d"],
    A: Float[Array, "d N"],
    B: Float[Array, " N"],
    C: Float[Array, " N"],
    h: Float[Array, "d N"],
) -> tuple[Float[Array, " d"], Float[Array, "d N"]]:
    """One sample of `selective_scan`: its output and the next state."""
    h = jnp.exp(dt[:, None] * A) * h + (dt * x)[:, None] * B
    return h @ C, h


def _selective_scan(A, x, dt, B, C, h0):
    """Outputs [b L d] and last states [b d N] of a batch.

    Chunks are of equal length, and near `CHUNK`, as far as L allows; what is left over makes a last
    short one. States are kept as [b N d], so that the loops over channels are contiguous.
    """
    L = x.shape[1]
    K = -(-L // CHUNK)
    T = L // K
    whole = K * T
    h = jnp.swapaxes(h0, 1, 2)
    outputs = []
    for begin, end, chunks in [(0, whole, K), (whole, L, 1)]:
        if begin < end:
            parts = [_time_leading(a[:, begin:end], chunks) for a in (x, dt, B, C)]
            y, h = _chunks(A.T, *parts, h)
            outputs.append(_batch_leading(y))
    y = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)
    return [y, jnp.swapaxes(h, 1, 2)]


_scan = whole_batch(_selective_scan, shared=1)


@jax.custom_vjp
def _chunks(A, x, dt, B, C, h0):
    return _chunks_forward(A, x, dt, B, C, h0)[0]


def _chunks_forward(A, x, dt, B, C, h0):
    def one(h, inputs):
        x, dt, B, C = inputs

        def step(h, inputs):
            v, dt, B, C = inputs
            h = jnp.exp(dt[:, None] * A) * h + B[:, :, None] * v[:, None]
            return h, jnp.sum(C[:, :, None] * h, axis=1)

        after, y = jax.lax.scan(step, h, (dt * x, dt, B, C))
        return after, (y, h)

    last, (y, before) = jax.lax.scan(one, h0, (x, dt, B, C))
    return (y, last), (A, x, dt, B, C, before)


def _chunks_backward(kept, cotangents):
    """With g_k the cotangent of h_k, a_k the decay: g_k = C_k dy_k + a_{k+1} g_{k+1}.

    Then dC_k = sum_d dy_k h_k, dB_k = sum_d g_k (dt x)_k, d(dt x)_k = sum_n B_k g_k, and through
    the decay, with p_k = g_k a_k h_{k-1}: d(dt)_k = sum_n A p_k, dA = sum_k dt_k p_k.
    """
    A, x, dt, B, C, before = kept
    dy, dh = cotangents

    def one(carry, inputs):
        later, dA = carry
        x, dt, B, C, dy, h = inputs
        v = dt * x

        def again(h, inputs):
            v, dt, B = inputs
            return jnp.exp(dt[:, None] * A) * h + B[:, :, None] * v[:, None], h

        last, previous = jax.lax.scan(again, h, (v, dt, B))
        current = jnp.concatenate([previous[1:], last[None]])
        dC = jnp.einsum("tbnd,tbd->tbn", current, dy)

        def adjoint(carry, inputs):
            later, dA = carry
            v, dt, B, C, dy, h = inputs
            g = later + C[:, :, None] * dy[:, None]
            later = jnp.exp(dt[:, None] * A) * g
            p = later * h
            dA = dA + jnp.sum(p * dt[:, None], axis=0)
            dB = jnp.sum(g * v[:, None], axis=2)
            dv = jnp.sum(g * B[:, :, None], axis=1)
            return (later, dA), (dB, dv, jnp.sum(p * A, axis=1))

        (later, dA), (dB, dv, ddt) = jax.lax.scan(
            adjoint, (later, dA), (v, dt, B, C, dy, previous), reverse=True
        )
        return (later, dA), (dt * dv, ddt + x * dv, dB, dC)

    (dh0, dA), (dx, ddt, dB, dC) = jax.lax.scan(
        one, (dh, jnp.zeros_like(A)), (x, dt, B, C, dy, before), reverse=True
    )
    return dA, dx, ddt, dB, dC, dh0


_chunks.defvjp(_chunks_forward, _chunks_backward)


def _time_leading(a, K):
    """[b, K T, m] -> [K, T, b, m]."""
    b, L, m = a.shape
    return a.reshape(b, K, L // K, m).transpose(1, 2, 0, 3)


def _batch_leading(a):
    """[K, T, b, m] -> [b, K T, m]."""
    K, T, b, m = a.shape
    return a.transpose(2, 0, 1, 3).reshape(b, K * T, m)
