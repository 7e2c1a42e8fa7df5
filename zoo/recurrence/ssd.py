"""The scan of Mamba-2: one decay for all states of a head, so that chunks are matrix products.

For head h with channels p and states n, and g the group of the head,

    H_k[h, p, n] = exp(dt_k[h] A[h]) H_{k-1}[h, p, n] + dt_k[h] x_k[h, p] B_k[g, n]
    y_k[h, p] = sum_n C_k[g, n] H_k[h, p, n]

(Dao & Gu, ICML 2024, arXiv 2405.21060, section 6: state-space duality). A CPU goes through the
samples one by one where there are few states.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..typing import InputArray, checked
from .choice import usable_cores
from .pieces import in_pieces, piece_axis, state_before
from .plain import is_plain
from .sample import sample
from .selective import has_kernel, selective_scan

FEW = 16
"""States up to which the kernel of the selective scan is faster than chunks, for each of up to two
cores: the kernel uses more cores than the products of chunks."""


@checked
def ssd_scan(
    x: Float[InputArray, "length heads headdim"],
    dt: Float[InputArray, "length heads"],
    A: Float[InputArray, " heads"],
    B: Float[InputArray, "length groups d_state"],
    C: Float[InputArray, "length groups d_state"],
    h0: Float[InputArray, "heads headdim d_state"],
    *,
    chunk: int,
) -> tuple[Float[Array, "length heads headdim"], Float[Array, "heads headdim d_state"]]:
    """Outputs y of the scan from the state `h0`, and the last state, in chunks of `chunk` samples.

    A sample with dt = 0 leaves the state as it is. One sequence per call; `jax.vmap` for a batch.
    The backward pass stores the states between chunks and recomputes everything else. States are in
    the precision of `h0`.
    """
    kind, dtype = x.dtype, jnp.result_type(x, h0)
    x, dt, A, B, C = (a.astype(dtype) for a in (x, dt, A, B, C))
    if piece_axis() is not None:
        with in_pieces(None):
            _, end = ssd_scan(x, dt, A, B, C, jnp.zeros_like(h0), chunk=chunk)

        def onward(steps, h):
            return jnp.exp(steps * A)[:, None, None] * h

        h0 = state_before(end, h0, onward, jnp.sum(dt, axis=0))
        with in_pieces(None):
            y, state = ssd_scan(x, dt, A, B, C, h0, chunk=chunk)
        return y.astype(kind), state
    if is_plain():
        state, y = jax.lax.scan(_one_sample(A), h0.astype(dtype), (x, dt, B, C))
        return y.astype(kind), state
    L, heads, channels = x.shape
    if L == 0:
        return x.astype(kind), h0
    groups = B.shape[1]
    grouped = (groups, heads // groups)
    few = B.shape[2] <= FEW * min(usable_cores(), 2)
    if few and has_kernel(x):
        y, state = _sample_by_sample(x, dt, A, B, C, h0.astype(dtype))
        return y.astype(kind), state
    v = (dt[..., None] * x).reshape(L, *grouped, channels)
    log_decay = (dt * A).reshape(L, *grouped)
    state = h0.reshape(*grouped, *h0.shape[1:])
    whole = L - L % chunk
    outputs = []
    if whole:
        parts = [a[:whole].reshape(-1, chunk, *a.shape[1:]) for a in (v, log_decay, B, C)]
        state, y = jax.lax.scan(lambda h, part: _chunk(h, *part), state, tuple(parts))
        outputs.append(y.reshape(whole, heads, channels))
    if whole < L:
        state, y = _chunk(state, *(a[whole:] for a in (v, log_decay, B, C)))
        outputs.append(y.reshape(-1, heads, channels))
    y = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs)
    return y.astype(kind), state.reshape(h0.shape)


@checked
def ssd_step(
    x: Float[InputArray, "heads headdim"],
    dt: Float[InputArray, " heads"],
    A: Float[InputArray, " heads"],
    B: Float[InputArray, "groups d_state"],
    C: Float[InputArray, "groups d_state"],
    h: Float[InputArray, "heads headdim d_state"],
) -> tuple[Float[Array, "heads headdim"], Float[Array, "heads headdim d_state"]]:
    """One sample of `ssd_scan`: its output and the next state."""
    kind, dtype = x.dtype, jnp.result_type(x, h)
    x, dt, A, B, C, h = (jnp.asarray(a, dtype) for a in (x, dt, A, B, C, h))
    y, after = sample(x.reshape(-1), dt, A[:, None], B, C, h.reshape(x.size, h.shape[-1]))
    return y.reshape(x.shape).astype(kind), after.reshape(h.shape)


def _one_sample(A):
    """`ssd_step` as the body of a scan."""

    def step(h, sample):
        x, dt, B, C = sample
        y, h = ssd_step(x, dt, A, B, C, h)
        return h, y

    return step


def _sample_by_sample(x, dt, A, B, C, h0):
    """By `selective_scan`, in which all channels of a head have the same decay."""
    L, heads, channels = x.shape
    each = heads // B.shape[1]
    outputs, states = [], []
    for group in range(B.shape[1]):
        own = slice(group * each, (group + 1) * each)
        h = h0[own].reshape(each * channels, -1)
        y, h = selective_scan(
            x[:, own].reshape(L, each * channels),
            jnp.repeat(dt[:, own], channels, axis=1),
            jnp.broadcast_to(jnp.repeat(A[own], channels)[:, None], h.shape),
            B[:, group],
            C[:, group],
            h,
        )
        outputs.append(y.reshape(L, each, channels))
        states.append(h.reshape(each, channels, -1))
    return jnp.concatenate(outputs, axis=1), jnp.concatenate(states)


@partial(jax.checkpoint, prevent_cse=False)
def _chunk(h, v, log_decay, B, C):
    """The state after, and the outputs of, a chunk: v [T g k p], log_decay [T g k], B, C [T g n].

    With S[t, s] the sum of the log decays in s < j <= t, the outputs are those of attention with
    weights (C_t B_s) exp(S[t, s]), s <= t, and what the state before adds. Sums over each span, not
    differences of sums from the start, keep the digits of short spans after long ones.
    """
    T = len(v)
    row, column = jnp.arange(T)[:, None], jnp.arange(T)
    upto = (column <= row).astype(v.dtype)
    spans = jnp.einsum("tj,js,jgk->tsgk", upto, (column < row).astype(v.dtype), log_decay)
    inside = (column <= row)[:, :, None, None]
    decay = jnp.exp(jnp.where(inside, spans, -jnp.inf))
    from_start = jnp.exp(jnp.einsum("tj,jgk->tgk", upto, log_decay))
    weights = jnp.einsum("tgn,sgn->tsg", C, B)[..., None] * decay
    y = jnp.einsum("tsgk,sgkp->tgkp", weights, v)
    y = y + from_start[..., None] * jnp.einsum("tgn,gkpn->tgkp", C, h)
    h = from_start[-1][..., None, None] * h
    return h + jnp.einsum("sgkp,sgn->gkpn", decay[-1][..., None] * v, B), y
