"""The linear recurrence x_k = a_k x_{k-1} + b_k, once, for everybody."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from .lti import Array as AnyArray

SCAN_CHUNK = 128
"""Samples whose states exist at the same time in the scan."""

MATMUL_CHUNK = 4
"""Samples in a chunk of the matrix product."""

FEW_CHANNELS = 64
"""Up to this many inputs and outputs, the matrix product is the faster form on a CPU."""


def lti_apply(
    log_lam: Complex[AnyArray, " n"],
    B: Complex[AnyArray, "n m"],
    C: Complex[AnyArray, "p n"],
    u: Float[AnyArray, "L m"],
    x0: Complex[AnyArray, " n"] | None = None,
) -> tuple[Float[Array, "L p"], Complex[Array, " n"]]:
    """Outputs Re(C x_k) of x_k = exp(log_lam) x_{k-1} + B u_k, and the state after the last one.

    The sequence is worked on in chunks, in one of two forms that give the same numbers: a chunk's
    states are made, used and forgotten (`_scan`), or are made at the chunks' ends only (`_matmul`).
    Neither keeps all L states, forward or backward.
    """
    x = jnp.zeros(log_lam.shape, jnp.result_type(log_lam)) if x0 is None else jnp.asarray(x0)
    few = max(B.shape[1], C.shape[0]) <= FEW_CHANNELS
    form, size = (_matmul, MATMUL_CHUNK) if few else (_scan, SCAN_CHUNK)
    whole = len(u) - len(u) % size
    outputs = []
    if whole:
        y, x = form(log_lam, B, C, u[:whole].reshape(-1, size, u.shape[1]), x)
        outputs.append(y.reshape(whole, -1))
    if whole < len(u):
        x, y = _chunk(jnp.exp(log_lam), B, C, x, u[whole:])
        outputs.append(y)
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs), x


def _chunk(lam, B, C, x, u):
    """State after, and outputs of, a short sequence from the state `x`, all states at once."""
    b = _complex_times_real(B, u)
    x, states = jax.lax.scan(lambda x, b: (lam * x + b,) * 2, x, b)
    return x, _real_part_of(C, states)


def _scan(log_lam, B, C, chunks, x):
    """Chunk after chunk; the backward pass makes a chunk's states again from its first one."""
    lam = jnp.exp(log_lam)
    one = jax.checkpoint(lambda x, u: _chunk(lam, B, C, x, u))
    x, y = jax.lax.scan(one, x, chunks)
    return y, x


def _matmul(log_lam, B, C, chunks, x):
    """All chunks at once, as matrix products with T x T blocks of impulse responses.

    With x the state before a chunk u_1..u_T, that after it is lam^T x + sum_s lam^(T-s) B u_s, and
    the outputs are y_t = Re(C lam^t x) + sum_{s <= t} Re(C lam^(t-s) B) u_s. Only the first is
    sequential, from chunk to chunk.
    """
    K, T, m = chunks.shape
    n, p = len(log_lam), C.shape[0]
    powers = jnp.exp(jnp.arange(T + 1)[:, None] * log_lam)
    flat = chunks.reshape(K, T * m)

    into = (powers[:T][::-1, :, None] * B).transpose(1, 0, 2).reshape(n, T * m)
    step = powers[T]
    x, before = jax.lax.scan(lambda x, b: (step * x + b, x), x, _complex_times_real(into, flat))

    out = powers[:, None, :] * C
    response = jnp.real(out[:T].reshape(T * p, n) @ B).reshape(T, p, m)
    lag = jnp.arange(T)[:, None] - jnp.arange(T)
    within = jnp.where((lag >= 0)[:, :, None, None], response[jnp.maximum(lag, 0)], 0)
    within = within.transpose(0, 2, 1, 3).reshape(T * p, T * m)
    y = flat @ within.T + _real_part_of(out[1:].reshape(T * p, n), before)
    return y.reshape(K, T, p), x


def _complex_times_real(B, u):
    """Rows B u_k, as two real products."""
    return jax.lax.complex(u @ jnp.real(B).T, u @ jnp.imag(B).T)


def _real_part_of(C, x):
    """Rows Re(C x_k), as two real products."""
    return jnp.real(x) @ jnp.real(C).T - jnp.imag(x) @ jnp.imag(C).T


def lti_step(
    log_lam: Complex[AnyArray, " n"],
    B: Complex[AnyArray, "n m"],
    C: Complex[AnyArray, "p n"],
    x: Complex[AnyArray, " n"],
    u: Float[AnyArray, " m"],
) -> tuple[Complex[Array, " n"], Float[Array, " p"]]:
    """One step of `lti_apply`: the next state and its output."""
    x = jnp.exp(log_lam) * x + B @ u
    return x, jnp.real(C @ x)


def linear_recurrence(
    a: Inexact[Array, "L n"], b: Inexact[Array, "L n"], x0: Inexact[Array, " n"] | None = None
) -> Inexact[Array, "L n"]:
    """All states of the time-varying recurrence x_k = a_k x_{k-1} + b_k, from `x0` or zero."""
    dtype = jnp.result_type(a, b)
    x = jnp.zeros(b.shape[1:], dtype) if x0 is None else x0.astype(dtype)

    def step(x, ab):
        x = ab[0] * x + ab[1]
        return x, x

    return jax.lax.scan(step, x, (a.astype(dtype), b.astype(dtype)))[1]
