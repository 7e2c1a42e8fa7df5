"""The recurrence of linear attention: a state of keys times values, which follows the data.

For each head, with K keys and V values,

    S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t

(GLA, arXiv 2312.06635; with one decay for all keys RetNet, arXiv 2307.08621), or by the delta rule

    S_t = exp(g_t) (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T

(DeltaNet, arXiv 2406.06484, where g = 0; Gated DeltaNet, arXiv 2412.06464).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..derivative import both_ways
from ..typing import InputArray, checked
from .attention_forms import Drive, delta_chunks, gated_chunks, one_sample
from .choice import on_cpu
from .compiled import SYSTEMS, attention_gradients, attention_outputs, built, native
from .pallas import with_kernel
from .pieces import in_pieces, piece_axis, state_before
from .plain import is_plain
from .whole_batch import whole_batch

CHUNK = {"delta": 64, "alike": 64, "gated": 16}
"""Samples of a chunk: by the delta rule, with one decay for all keys, with one for each key."""

KEPT = 16
"""Samples between two stored states in the kernel's backward pass."""


class AttentionSignals(NamedTuple):
    """The arguments of the recurrence for each head, and the gate after it."""

    q: Float[Array, "*lead key_heads d_state"]
    k: Float[Array, "*lead key_heads d_state"]
    v: Float[Array, "*lead heads values"]
    log_decay: Float[Array, "*lead heads #d_state"]
    """Of each key, or one for all keys of a head."""
    beta: Float[Array, "*lead heads"] | None
    """The step size of the delta rule; None without the delta rule."""
    gate: Float[Array, "*lead heads values"] | None
    """The outputs are multiplied by the SiLU of this; None for no gate."""


@checked
def attention_scan(
    q: Float[InputArray, "length key_heads d_state"],
    k: Float[InputArray, "length key_heads d_state"],
    v: Float[InputArray, "length heads values"],
    log_decay: Float[InputArray, "length heads #d_state"],
    beta: Float[InputArray, "length heads"] | None = None,
    S0: Float[InputArray, "heads d_state values"] | None = None,
) -> tuple[Float[Array, "length heads values"], Float[Array, "heads d_state values"]]:
    """Outputs o of linear attention from the state `S0` (zero if not given), and the last state.

    With `beta`, by the delta rule, whose decay is one for all keys of a head. Neighbouring heads
    share a key head. A sample with log_decay = 0, and k = 0 or beta = 0, leaves the state as it is.
    Differentiable in all arguments. One sequence per call; `jax.vmap` for a batch, which is then
    computed as one. The states of all samples are never in memory at once, forward or backward.
    They are in single precision at least.
    """
    kind = v.dtype
    given = [a for a in (q, k, v, log_decay, beta, S0) if a is not None]
    dtype = jnp.result_type(*given, jnp.float32)
    _check(k, v, log_decay, beta)
    heads = v.shape[1]
    q, k = (_of_heads(jnp.asarray(a, dtype), heads) for a in (q, k))
    v, log_decay = (jnp.asarray(a, dtype) for a in (v, log_decay))
    shape = (heads, k.shape[-1], v.shape[-1])
    S0 = jnp.zeros(shape, dtype) if S0 is None else jnp.asarray(S0, dtype)
    if piece_axis() is not None:
        S0 = _before_the_piece(q, k, v, log_decay, beta, S0)
    arrays = [q, k, v, log_decay, *([] if beta is None else [jnp.asarray(beta, dtype)]), S0]
    if is_plain():
        S, o = jax.lax.scan(_one_sample, S0, tuple(arrays[:-1]))
        return o.astype(kind), S
    o, S = (_gated if beta is None else _delta)(*(a[None] for a in arrays))
    return o[0].astype(kind), S[0]


def _before_the_piece(q, k, v, log_decay, beta, S0):
    """The state that this device's piece of a sequence begins with.

    By the delta rule a piece leaves a matrix of keys times the state before it: what it makes of
    the unit matrix, where nothing is written.
    """
    with in_pieces(None):
        _, end = attention_scan(q, k, v, log_decay, beta)
        if beta is None:
            left = jnp.sum(log_decay, axis=0)
        else:
            nothing = jnp.zeros_like(k)
            unit = jnp.broadcast_to(
                jnp.eye(k.shape[-1], dtype=k.dtype), (*S0.shape[:2], len(k[0, 0]))
            )
            _, left = attention_scan(q, k, nothing, log_decay, beta, unit)
    if beta is None:
        return state_before(end, S0, lambda g, S: jnp.exp(g)[..., None] * S, left)
    return state_before(end, S0, jnp.matmul, left)


@checked
def attention_step(
    q: Float[InputArray, "key_heads d_state"],
    k: Float[InputArray, "key_heads d_state"],
    v: Float[InputArray, "heads values"],
    log_decay: Float[InputArray, "heads #d_state"],
    beta: Float[InputArray, " heads"] | None,
    S: Float[InputArray, "heads d_state values"],
) -> tuple[Float[Array, "heads values"], Float[Array, "heads d_state values"]]:
    """One sample of `attention_scan`: its output and the next state."""
    kind, dtype = v.dtype, jnp.result_type(v, S)
    _check(k, v, log_decay, beta)
    q, k = (_of_heads(jnp.asarray(a, dtype), len(v)) for a in (q, k))
    v, log_decay = (jnp.asarray(a, dtype) for a in (v, log_decay))
    beta = None if beta is None else jnp.asarray(beta, dtype)
    S, o = one_sample(jnp.asarray(S, dtype), q, k, v, log_decay, beta)
    return o.astype(kind), S


def _one_sample(S, sample):
    """The body of a scan over samples."""
    q, k, v, log_decay, *beta = sample
    return one_sample(S, q, k, v, log_decay, beta[0] if beta else None)


def _check(k, v, log_decay, beta):
    heads, shared = v.shape[-2], k.shape[-2]
    if heads % shared:
        raise ValueError(f"`k` must have a number of heads that divides {heads}, got {shared}")
    if beta is not None and log_decay.shape[-1] != 1:
        raise ValueError(
            "`log_decay` must be one for all keys of a head with the delta rule, got "
            f"{log_decay.shape[-1]}"
        )


def _of_heads(a: Array, heads: int) -> Array:
    """Arrays that neighbouring heads share, repeated for each head."""
    return a if a.shape[-2] == heads else jnp.repeat(a, heads // a.shape[-2], axis=-2)


def _gated_attention(q, k, v, log_decay, S0):
    """Outputs [b L h V] and last states [b h K V] of a batch, without the delta rule."""
    return _attention(q, k, v, log_decay, jnp.zeros((q.shape[0], 0, q.shape[2]), q.dtype), S0)


def _delta_attention(q, k, v, log_decay, beta, S0):
    """The same with the delta rule."""
    return _attention(q, k, v, log_decay, beta, S0)


_gated = whole_batch(_gated_attention, shared=0)
_delta = whole_batch(_delta_attention, shared=0)


def _attention(q, k, v, log_decay, beta, S0):
    """By the kernel, if available. A `beta` of no samples means no delta rule."""
    if v.size == 0:
        return [v, S0]
    if on_cpu() and native(v.dtype, SYSTEMS) and built("attention_outputs"):
        return list(_by_kernel(q, k, v, log_decay, beta, S0))
    return list(_in_chunks(q, k, v, log_decay, beta, S0))


def _in_chunks(q, k, v, log_decay, beta, S0):
    """By XLA."""
    if beta.shape[1]:
        return delta_chunks(Drive(q, k, v, log_decay, beta), S0, CHUNK["delta"])
    kind = "alike" if log_decay.shape[-1] == 1 else "gated"
    return gated_chunks(Drive(q, k, v, log_decay, None), S0, CHUNK[kind])


def _by_kernel_forward(*arrays):
    def otherwise(*arrays):
        # the states before chunks: those of the kernel's gradient, for which the other has no use
        v, S0 = arrays[2], arrays[-1]
        chunks = -(-v.shape[1] // KEPT)
        return *_in_chunks(*arrays), jnp.zeros((len(v), chunks, *S0.shape[1:]), v.dtype)

    kernel = partial(attention_outputs, chunk=KEPT)
    o, S, before = with_kernel(otherwise, *arrays, cpu=kernel)
    return (o, S), (*arrays[:-1], before, arrays[-1])


def _by_kernel_tangent(kept, tangents):
    return jax.jvp(_in_chunks, (*kept[:5], kept[6]), tangents)[1]


def _by_kernel_backward(kept, cotangents):
    def kernel(q, k, v, log_decay, beta, before, S0, do, dS):
        return attention_gradients(q, k, v, log_decay, beta, before, do, dS, chunk=KEPT)

    def otherwise(q, k, v, log_decay, beta, before, S0, do, dS):
        return jax.vjp(_in_chunks, q, k, v, log_decay, beta, S0)[1]((do, dS))

    return with_kernel(otherwise, *kept, *cotangents, cpu=kernel)


_by_kernel = both_ways(_by_kernel_forward, _by_kernel_tangent, _by_kernel_backward)
