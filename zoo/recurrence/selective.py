"""The selective scan of Mamba: a diagonal recurrence whose decay, input and output depend on data.

For each channel d with states n,

    h_k[d, n] = exp(dt_k[d] A[d, n]) h_{k-1}[d, n] + dt_k[d] B_k[n] x_k[d]
    y_k[d] = sum_n C_k[n] h_k[d, n]

(Gu & Dao, arXiv 2312.00752, algorithm 2: zero-order hold for A, Euler's rule for B).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..derivative import both_ways
from ..typing import InputArray, checked
from .choice import on_cpu, usable_cores
from .compiled import SYSTEMS, native, selective_gradients, selective_outputs
from .linear import linear_recurrence
from .pallas import with_kernel
from .pieces import in_pieces, piece_axis, state_before
from .plain import is_plain, plain_selective
from .sample import sample
from .samples import (
    batch_leading,
    join_axes,
    joined,
    sample_at,
    split_axis,
    time_leading,
    with_sample,
)
from .whole_batch import whole_batch

CHUNK = 16
"""Samples between two stored states; the backward pass recomputes the others."""

CACHED = 2**15
"""States that a CPU processes together, so that a few arrays of them stay in cache."""

VECTOR = 64
"""Fewest channels that are processed together."""

ON_GPU = 2**26
"""Most states of a chunk, over all its samples, that a GPU keeps in memory."""


class Signals(NamedTuple):
    """The arguments of the scan for d channels, in G groups of neighbours that share B and C."""

    x: Float[Array, "*lead channels"]
    dt: Float[Array, "*lead channels"]
    B: Float[Array, "*lead groups d_state"]
    C: Float[Array, "*lead groups d_state"]


@checked
def selective_scan(
    x: Float[InputArray, "length channels"],
    dt: Float[InputArray, "length channels"],
    A: Float[InputArray, "channels d_state"],
    B: Float[InputArray, "length d_state"],
    C: Float[InputArray, "length d_state"],
    h0: Float[InputArray, "channels d_state"] | None = None,
) -> tuple[Float[Array, "length channels"], Float[Array, "channels d_state"]]:
    """Outputs y of the selective scan from the state `h0` (zero if not given), and the last state.

    A sample with dt = 0 leaves the state as it is. Differentiable in all arguments. One sequence
    per call; `jax.vmap` for a batch, which is then computed as one. The states of all samples are
    never in memory at once, forward or backward. They are in single precision at least.
    """
    kind = x.dtype
    dtype = jnp.result_type(x, dt, A, B, C, jnp.float32, *([] if h0 is None else [h0]))
    x, dt, A, B, C = (jnp.asarray(a, dtype) for a in (x, dt, A, B, C))
    h0 = jnp.zeros(A.shape, dtype) if h0 is None else jnp.asarray(h0, dtype)
    if piece_axis() is not None:
        with in_pieces(None):
            _, end = selective_scan(x, dt, A, B, C)
        h0 = state_before(end, h0, lambda s, h: jnp.exp(s[:, None] * A) * h, jnp.sum(dt, axis=0))
    y, h = _scan(A, x[None], dt[None], B[None], C[None], h0[None])
    return y[0].astype(kind), h[0]


@checked
def selective_step(
    x: Float[InputArray, " channels"],
    dt: Float[InputArray, " channels"],
    A: Float[InputArray, "channels d_state"],
    B: Float[InputArray, " d_state"],
    C: Float[InputArray, " d_state"],
    h: Float[InputArray, "channels d_state"],
) -> tuple[Float[Array, " channels"], Float[Array, "channels d_state"]]:
    """One sample of `selective_scan`: its output and the next state."""
    dtype = jnp.result_type(x, h)
    y, h = sample(*(jnp.asarray(a, dtype) for a in (x, dt, A, B[None], C[None], h)))
    return y.astype(x.dtype), h


def _selective_scan(A, x, dt, B, C, h0):
    """Outputs [b L d] and last states [b d N] of a batch."""
    if is_plain():
        return list(plain_selective(A, x, dt, B, C, h0))
    if x.size == 0:
        return [x, h0]
    if not on_cpu():
        return _in_long_chunks(A, x, dt, B, C, h0)
    arrays = A, x, dt, B, C, h0
    return list(_by_kernel(*arrays)) if has_kernel(x) else _in_parts(*arrays)


_scan = whole_batch(_selective_scan, shared=1)


@checked
def has_kernel(x: Float[InputArray, "..."]) -> bool:
    """Whether a compiled kernel computes the scan of signals like `x`."""
    return on_cpu() and native(x.dtype, SYSTEMS)


def _by_kernel_forward(A, x, dt, B, C, h0):
    sizes = _sizes(x)

    def kernel(A, x, dt, B, C, h0):
        y, h, before = selective_outputs(A.T, x, dt, B, C, jnp.swapaxes(h0, 1, 2), **sizes)
        return y, jnp.swapaxes(h, 1, 2), before

    def otherwise(*arrays):
        y, h = _in_parts(*arrays, chunks=lambda *parts: _chunks_forward(*parts)[0])
        # the states before chunks: those of the kernel's gradient, for which the other has no use
        return y, h, jnp.zeros((len(x), -(-x.shape[1] // CHUNK), *A.shape[::-1]), x.dtype)

    y, h, before = with_kernel(otherwise, A, x, dt, B, C, h0, cpu=kernel)
    return (y, h), (A, x, dt, B, C, h0, before)


def _by_kernel_tangent(kept, tangents):
    return tuple(jax.jvp(_in_parts, kept[:6], tangents)[1])


def _by_kernel_backward(kept, cotangents):
    *arrays, before = kept
    sizes = _sizes(arrays[1])

    def kernel(A, x, dt, B, C, h0, before, dy, dh):
        dA, *others, dh0 = selective_gradients(
            A.T, x, dt, B, C, before, dy, jnp.swapaxes(dh, 1, 2), **sizes
        )
        return dA.T, *others, jnp.swapaxes(dh0, 1, 2)

    def otherwise(A, x, dt, B, C, h0, before, dy, dh):
        return jax.vjp(_in_parts, A, x, dt, B, C, h0)[1]([dy, dh])

    return with_kernel(otherwise, *arrays, before, *cotangents, cpu=kernel)


_by_kernel = both_ways(_by_kernel_forward, _by_kernel_tangent, _by_kernel_backward)


def _sizes(x):
    """The kernel's chunk size, and how many channels it processes together: as many as possible
    while each core has work.
    """
    sequences, _, d = x.shape
    enough = [w for w in (64, 32) if sequences * -(-d // w) >= usable_cores()]
    return {"chunk": CHUNK, "width": enough[0] if enough else 16}


def _in_parts(A, x, dt, B, C, h0, chunks=None):
    """Outputs [b L d] and last states [b d N] by loops of XLA, over one part of the batch and
    channels at a time."""
    sequences, channels = _parts(*h0.shape)
    together = partial(_together, chunks=chunks or _chunks)

    def of_sequences(part):
        x, dt, B, C, h0 = part
        if channels == 1:
            return together(A, x, dt, B, C, h0)

        def of_channels(part):
            A, x, dt, h0 = part
            return together(A, x, dt, B, C, h0)

        own = [split_axis(a, axis, channels) for a, axis in ((A, 0), (x, -1), (dt, -1), (h0, 1))]
        y, h = jax.lax.map(of_channels, own)
        return [join_axes(y, -1), join_axes(h, 1)]

    if sequences == 1:
        return of_sequences((x, dt, B, C, h0))
    parts = tuple(split_axis(a, 0, sequences) for a in (x, dt, B, C, h0))
    return [join_axes(a, 0) for a in jax.lax.map(of_sequences, parts)]


def _parts(batch: int, d: int, N: int) -> tuple[int, int]:
    """The numbers of equal parts of sequences and channels: the most with at least `CACHED` states
    in each, two sequences (one alone compiles to slower matrix products), and `VECTOR` channels.
    """

    def most(size: int, least: int, others: int) -> int:
        counts = [k for k in range(1, size + 1) if size % k == 0 and size // k >= least]
        return max([k for k in counts if size // k * others >= CACHED], default=1)

    sequences = most(batch, 2, d * N)
    return sequences, most(d, VECTOR, batch // sequences * N)


def _in_long_chunks(A, x, dt, B, C, h0):
    """Outputs and last states, with all states of a chunk in memory, recomputed in the backward
    pass. A GPU has the memory, and its overhead per sample would be large.
    """
    L = x.shape[1]
    K = -(-L // max(CHUNK, ON_GPU // h0.size))
    T = L // K

    @jax.checkpoint
    def one(h, part):
        x, dt, B, C = part
        decay = jnp.exp(dt[..., None] * A)
        states = jax.vmap(linear_recurrence)(decay, (dt * x)[..., None] * B[:, :, None, :], h)
        return states[:, -1], jnp.einsum("btdn,btn->btd", states, C)

    h, y = jax.lax.scan(one, h0, [split_axis(a[:, : K * T], 1, K) for a in (x, dt, B, C)])
    outputs = [join_axes(y, 1)]
    if K * T < L:
        h, y = one(h, [a[:, K * T :] for a in (x, dt, B, C)])
        outputs.append(y)
    return [joined(outputs), h]


def _together(A, x, dt, B, C, h0, chunks):
    """Outputs [b L d] and last states [b d N] of sequences that advance together, step by step.
    Chunks have equal lengths near `CHUNK`, as far as L allows; the remaining samples make a last
    short one. States are kept as [b N d], so that the loops over channels are contiguous.
    """
    L = x.shape[1]
    K = -(-L // CHUNK)
    T = L // K
    whole = K * T
    h = jnp.swapaxes(h0, 1, 2)
    outputs = []
    for begin, end, count in [(0, whole, K), (whole, L, 1)]:
        if begin < end:
            parts = [time_leading(a[:, begin:end], count) for a in (x, dt, B, C)]
            y, h = chunks(A.T, *parts, h)
            outputs.append(batch_leading(y))
    return [joined(outputs), jnp.swapaxes(h, 1, 2)]


def _chunks_forward(A, x, dt, B, C, h0):
    """Outputs [K T b d] and last state [b N d] of chunks x, dt [K T b d] and B, C [K T b N]."""

    def one(h, inputs):
        x, dt, B, C = inputs

        def step(h, inputs):
            v, dt, B, C = inputs
            h = _advance(A, h, v, dt, B)
            return h, jnp.einsum("bn,bnd->bd", C, h)

        after, y = jax.lax.scan(step, h, (dt * x, dt, B, C))
        return after, (y, h)

    last, (y, before) = jax.lax.scan(one, h0, (x, dt, B, C))
    return (y, last), (A, x, dt, B, C, before)


def _chunks_tangent(kept, tangents):
    *arrays, before = kept
    return jax.jvp(lambda *a: _chunks_forward(*a)[0], (*arrays, before[0]), tangents)[1]


def _chunks_backward(kept, cotangents):
    """With g_k the cotangent of h_k, a_k the decay: g_k = C_k dy_k + a_{k+1} g_{k+1}.

    Then dC_k = sum_d dy_k h_k, dB_k = sum_d g_k (dt x)_k, d(dt x)_k = sum_n B_k g_k, and through
    the decay, with p_k = g_k a_k h_{k-1}: d(dt)_k = sum_n A p_k, dA = sum_k dt_k p_k.
    """
    A, x, dt, B, C, before = kept
    dy, dh = cotangents
    T = x.shape[1]

    def one(carry, inputs):
        later, total, states, p = carry
        x, dt, B, C, dy, h = inputs
        v = dt * x
        decay = jnp.exp(dt[:, :, None] * A)
        states, dC = _again(decay, v, B, dy, with_sample(states, h, 0))
        later, p, dv, dB = _adjoint(decay, v, B, C, dy, states, later, p)
        # XLA's sums of products with A or dt are several times slower than products, then sums
        ddt = jnp.einsum("tbnd,tbn->tbd", p * A, jnp.ones_like(B))
        total = total + sum(p[t] * dt[t][:, None] for t in range(T))
        return (later, total, states, p), (dt * dv, ddt + x * dv, dB, dC)

    # one pair of arrays for the states and the p of a chunk serves all chunks
    room = [jnp.zeros((size, *dh.shape), dh.dtype) for size in (T + 1, T)]
    (dh0, total, *_), (dx, ddt, dB, dC) = jax.lax.scan(
        one, (dh, jnp.zeros_like(dh), *room), (x, dt, B, C, dy, before), reverse=True
    )
    return jnp.sum(total, axis=0), dx, ddt, dB, dC, dh0


def _again(decay, v, B, dy, states):
    """The states [T + 1, b N d] of a chunk, of which the first is given, and dC."""

    def step(t, carry):
        states, dC = carry
        h = (
            sample_at(decay, t) * sample_at(states, t)
            + sample_at(B, t)[:, :, None] * sample_at(v, t)[:, None]
        )
        dC_t = jnp.einsum("bnd,bd->bn", h, sample_at(dy, t))
        return with_sample(states, h, t + 1), with_sample(dC, dC_t, t)

    return jax.lax.fori_loop(0, len(v), step, (states, jnp.zeros_like(B)))


def _adjoint(decay, v, B, C, dy, states, later, p):
    """a_k g_k of the first sample of a chunk, p_k of all (written over `p`), d(dt x) and dB.

    `later` is a_k g_k of the sample after the chunk.
    """
    T = len(v)

    def step(k, carry):
        later, p, dv, dB = carry
        t = T - 1 - k
        g = later + sample_at(C, t)[:, :, None] * sample_at(dy, t)[:, None]
        later = sample_at(decay, t) * g
        return (
            later,
            with_sample(p, later * sample_at(states, t), t),
            with_sample(dv, jnp.einsum("bnd,bn->bd", g, sample_at(B, t)), t),
            with_sample(dB, jnp.einsum("bnd,bd->bn", g, sample_at(v, t)), t),
        )

    start = later, p, jnp.zeros_like(v), jnp.zeros_like(B)
    return jax.lax.fori_loop(0, T, step, start)


_chunks = both_ways(_chunks_forward, _chunks_tangent, _chunks_backward)


def _advance(A, h, v, dt, B):
    """The states [b N d] one sample on, v = dt x."""
    return jnp.exp(dt[:, None] * A) * h + B[:, :, None] * v[:, None]
