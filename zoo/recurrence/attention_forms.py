"""Forms of the recurrence of linear attention, of a whole batch: sample by sample, and in chunks.

All compute, for each sequence and head, a state S of K keys and V values,

    S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T                                 (gated)
    S_t = exp(g_t) (S_{t-1} - b_t k_t (S_{t-1}^T k_t)^T) + b_t k_t v_t^T     (delta)
    o_t = S_t^T q_t

and keep no state but those between chunks: the backward pass makes the others again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..typing import checked


class Drive(NamedTuple):
    """The arguments of the recurrence for a batch of sequences."""

    q: Float[Array, "batch length heads keys"]
    k: Float[Array, "batch length heads keys"]
    v: Float[Array, "batch length heads values"]
    log_decay: Float[Array, "batch length heads #keys"]
    """Of each key, or one for all keys of a head."""
    beta: Float[Array, "batch length heads"] | None
    """The step size of the delta rule; None without the delta rule."""


States = Float[Array, "batch heads keys values"]
Outputs = Float[Array, "batch length heads values"]


@checked
def one_sample(
    S: Float[Array, "*lead keys values"],
    q: Float[Array, "*lead keys"],
    k: Float[Array, "*lead keys"],
    v: Float[Array, "*lead values"],
    log_decay: Float[Array, "*lead #keys"],
    beta: Float[Array, "*lead"] | None,
) -> tuple[Float[Array, "*lead keys values"], Float[Array, "*lead values"]]:
    """The state after a sample, and its output."""
    S = jnp.exp(log_decay)[..., None] * S
    written = v
    if beta is not None:
        written = beta[..., None] * (v - jnp.einsum("...kv,...k->...v", S, k))
    S = S + k[..., None] * written[..., None, :]
    return S, jnp.einsum("...kv,...k->...v", S, q)


@checked
def sample_by_sample(drive: Drive, S0: States, chunk: int) -> tuple[Outputs, States]:
    """The definition. States are kept every `chunk` samples."""

    def samples(S: Any, part: Drive) -> Any:
        rows = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), part)
        S, o = jax.lax.scan(lambda S, row: one_sample(S, *row), S, rows)
        return S, jnp.moveaxis(o, 0, 1)

    return _over_chunks(samples, drive, S0, chunk)


@checked
def gated_chunks(drive: Drive, S0: States, chunk: int) -> tuple[Outputs, States]:
    """Without the delta rule: attention inside chunks, states between them.

    With c_ts the sum of the log decays in s < j <= t, o_t = sum_s (q_t exp(c_ts) k_s) v_s, s <= t.
    No exponent is ever positive, so that no decay is too strong. (GLA, arXiv 2312.06635, section 4;
    its factors exp(c_t) and exp(-c_s) overflow.)
    """
    if drive.log_decay.shape[-1] == drive.k.shape[-1] > 1:
        weigh = partial(jnp.einsum, "bthk,bshk,btshk->btsh")
    else:
        weigh = _weigh_alike

    def one(S: Any, part: Drive) -> Any:
        q, k, v, g, _ = part
        within, start, end = _spans(g)
        o = jnp.einsum("btsh,bshv->bthv", weigh(q, k, jnp.exp(within)), v)
        o = o + jnp.einsum("bthk,bhkv->bthv", q * jnp.exp(start), S)
        S = jnp.exp(start[:, -1])[..., None] * S
        return S + jnp.einsum("bshk,bshv->bhkv", k * jnp.exp(end), v), o

    return _over_chunks(one, drive, S0, chunk)


@checked
def delta_chunks(drive: Drive, S0: States, chunk: int) -> tuple[Outputs, States]:
    """With the delta rule, by the WY representation (arXiv 2406.06484, 2412.06464, section 3).

    S_t adds up k_s u_s^T with u_t = b_t (v_t - exp(g_t) S_{t-1}^T k_t), so that all u of a chunk
    solve (I + M) u = b (v - exp(c_t) S_0^T k), M_ts = b_t exp(c_ts) k_t k_s where s < t. The
    solutions for v and for the keys are worked out before, for all chunks at once.
    """
    L = drive.q.shape[1]
    chunk = min(chunk, max(L, 1))
    parts = _cut(drive, chunk)
    prepare = jax.vmap(_solved)
    ready = prepare(parts)

    def one(S: Any, part: Any) -> Any:
        u, w, weights, q, k, decay = part
        u = u - jnp.einsum("bthk,bhkv->bthv", w, S)
        o = jnp.einsum("btsh,bshv->bthv", weights, u) + jnp.einsum("bthk,bhkv->bthv", q, S)
        return decay[..., None, None] * S + jnp.einsum("bshk,bshv->bhkv", k, u), o

    S, o = jax.lax.scan(_again(one), S0, ready)
    return _joined(o, L), S


@partial(jax.checkpoint, prevent_cse=False)
def _solved(part: Drive) -> Any:
    """The contribution of a chunk to the state that it begins with."""
    q, k, v, g, beta = part
    assert beta is not None
    within, start, end = _spans(g)
    decay = jnp.exp(within[..., 0])
    T = q.shape[1]
    earlier = jnp.tril(jnp.ones((T, T), bool), -1)[:, :, None]
    M = beta[:, :, None] * jnp.where(earlier, jnp.einsum("bthk,bshk->btsh", k, k) * decay, 0)
    right = beta[..., None] * jnp.concatenate([v, k * jnp.exp(start)], axis=-1)
    solution = _inverse(jnp.moveaxis(M, 3, 1)) @ jnp.moveaxis(right, 2, 1)
    u, w = jnp.split(jnp.moveaxis(solution, 1, 2), (v.shape[-1],), axis=-1)
    weights = jnp.einsum("bthk,bshk->btsh", q, k) * decay
    return u, w, weights, q * jnp.exp(start), k * jnp.exp(end), jnp.exp(start[:, -1, :, 0])


def _inverse(M: Float[Array, "batch heads chunk chunk"]) -> Float[Array, "batch heads chunk chunk"]:
    """(I + M)^-1 of a strictly lower triangular M, from the inverses of blocks, twice as large each
    time. These are products alone: two of LAPACK's triangular solves at once wait for each other
    where XLA has two threads.
    """
    T = M.shape[-1]
    size = 1 << (T - 1).bit_length()
    M = jnp.pad(M, [(0, 0), (0, 0), (0, size - T), (0, size - T)])
    found = jnp.ones((*M.shape[:2], size, 1, 1), M.dtype)
    while (n := found.shape[-1]) < size:
        pairs = size // (2 * n)
        blocks = M.reshape(*M.shape[:2], pairs, 2 * n, pairs, 2 * n)
        below = jnp.moveaxis(jnp.diagonal(blocks, axis1=2, axis2=4), -1, 2)[..., n:, :n]
        first, second = found[:, :, 0::2], found[:, :, 1::2]
        corner = -second @ below @ first
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        found = jnp.concatenate([upper, jnp.concatenate([corner, second], axis=-1)], axis=-2)
    return found[:, :, 0, :T, :T]


def _weigh_alike(q: Any, k: Any, decay: Any) -> Any:
    """If the keys of a head have one decay, a matrix product comes first."""
    return jnp.einsum("bthk,bshk->btsh", q, k) * decay[..., 0]


def _spans(g: Float[Array, "batch chunk heads keys"]) -> tuple[Array, Array, Array]:
    """Sums of log decays: of s < j <= t (-inf where s > t), from the start, and to the end.

    Sums over each span, not differences of sums from the start, keep the digits of short spans
    after long ones.
    """
    T = g.shape[1]
    row, column = jnp.arange(T)[:, None], jnp.arange(T)
    after = (column < row)[None, :, :, None, None]
    spans = jnp.cumsum(jnp.where(after, g[:, :, None], 0), axis=1)
    inside = (column <= row)[None, :, :, None, None]
    return jnp.where(inside, spans, -jnp.inf), jnp.cumsum(g, axis=1), spans[:, -1]


def _over_chunks(one: Callable[..., Any], drive: Drive, S0: Any, chunk: int) -> Any:
    """`one(S, part)` from chunk to chunk: all outputs, and the last state."""
    L = drive.q.shape[1]
    S, o = jax.lax.scan(_again(one), S0, _cut(drive, min(chunk, max(L, 1))))
    return _joined(o, L), S


def _again(one: Callable[..., Any]) -> Callable[..., Any]:
    """`one`, recomputed in the backward pass from its stored arguments."""
    return jax.checkpoint(one, prevent_cse=False)


def _cut(drive: Drive, chunk: int) -> Drive:
    """[b L ...] as [chunks b T ...], padded with zeros, which do not change a state."""

    def cut(a: Array) -> Array:
        b, L, *rest = a.shape
        a = jnp.pad(a, [(0, 0), (0, -L % chunk), *[(0, 0)] * len(rest)])
        return jnp.moveaxis(a.reshape(b, -1, chunk, *rest), 1, 0)

    return jax.tree.map(cut, drive)


def _joined(o: Array, L: int) -> Array:
    """The inverse of `_cut`."""
    o = jnp.moveaxis(o, 0, 1)
    return o.reshape(o.shape[0], -1, *o.shape[3:])[:, :L]
