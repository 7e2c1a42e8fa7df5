"""The linear recurrence x_k = a_k x_{k-1} + b_k, once, for everybody."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from .lti import Array as AnyArray

CHUNK = 128
"""Samples whose states exist at the same time."""


def lti_apply(
    log_lam: Complex[AnyArray, " n"],
    B: Complex[AnyArray, "n m"],
    C: Complex[AnyArray, "p n"],
    u: Float[AnyArray, "L m"],
    x0: Complex[AnyArray, " n"] | None = None,
) -> tuple[Float[Array, "L p"], Complex[Array, " n"]]:
    """Outputs Re(C x_k) of x_k = exp(log_lam) x_{k-1} + B u_k, and the state after the last one.

    The sequence is cut into chunks. The states of a chunk are made, used and forgotten, also in
    the backward pass, which makes them again from the state at the chunk's start: memory holds
    L / CHUNK + CHUNK states instead of L.
    """
    lam = jnp.exp(log_lam)
    x = jnp.zeros_like(lam) if x0 is None else jnp.asarray(x0)

    def chunk(x, u):
        b = jax.lax.complex(u @ jnp.real(B).T, u @ jnp.imag(B).T)
        x, states = jax.lax.scan(lambda x, b: (lam * x + b,) * 2, x, b)
        y = jnp.real(states) @ jnp.real(C).T - jnp.imag(states) @ jnp.imag(C).T
        return x, y

    length, m = u.shape
    whole = length - length % CHUNK
    outputs = []
    if whole:
        chunks = u[:whole].reshape(-1, CHUNK, m)
        x, y = jax.lax.scan(jax.checkpoint(chunk), x, chunks)
        outputs.append(y.reshape(whole, -1))
    if whole < length:
        x, y = chunk(x, u[whole:])
        outputs.append(y)
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs), x


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
