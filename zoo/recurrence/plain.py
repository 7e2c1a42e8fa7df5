"""Recurrences without kernels: the switch for all kernels, and plain loops for any program.

`COMPRESSM_KERNELS=0` in the environment switches kernels off for a process. Inside `plainly` they
are off too, and every recurrence is a loop over its samples. Such a loop can be traced for a
symbolic number of samples, and lowered for several platforms at once (`jax.export`).
"""

import contextlib
import contextvars
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from ..typing import checked
from .parts import parts_times, real_of_times, states_before

VARIABLE = "COMPRESSM_KERNELS"

_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
@checked
def plainly() -> Iterator[None]:
    """Inside this context, recurrences are traced and lowered as plain loops, for all sizes and
    platforms. Functions that JAX has already traced are not traced again.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


@checked
def is_plain() -> bool:
    """Whether `plainly` is active."""
    return _plain.get()


@checked
def kernels_allowed() -> bool:
    """Whether kernels may be used: neither `plainly` nor the environment forbids them.

    ValueError for another value of the variable than 0 or 1.
    """
    given = os.environ.get(VARIABLE, "1")
    if given not in ("0", "1"):
        raise ValueError(f"`{VARIABLE}` must be 0 or 1, got {given!r}")
    return given == "1" and not _plain.get()


@checked
def plain_system(log_lam, B, C, u, x0):
    """As the forms of `zoo.recurrence.forms`: outputs [b L p] and last states [b n]."""
    lam = jnp.exp(log_lam)

    def step(x, u_k):
        x = lam * x + jax.lax.complex(*parts_times(B, u_k))
        return x, real_of_times(C, (jnp.real(x), jnp.imag(x)))

    x, y = jax.lax.scan(step, states_before(log_lam, u, x0), jnp.swapaxes(u, 0, 1))
    return jnp.swapaxes(y, 0, 1), x


@checked
def plain_states(a, b, x0, reverse):
    """All states [b L *s] of x_k = a_k x_{k-1} + b_k."""

    def step(x, sample):
        a_k, b_k = sample
        x = a_k * x + b_k
        return x, x

    samples = jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)
    return jnp.swapaxes(jax.lax.scan(step, x0, samples, reverse=reverse)[1], 0, 1)


@checked
def plain_selective(A, x, dt, B, C, h0):
    """Outputs [b L d] and last states [b d N] of the selective scan of a batch."""

    def step(h, sample):
        x, dt, B, C = sample
        h = jnp.exp(dt[..., None] * A) * h + (dt * x)[..., None] * B[:, None, :]
        return h, jnp.einsum("bdn,bn->bd", h, C)

    h, y = jax.lax.scan(step, h0, [jnp.swapaxes(each, 0, 1) for each in (x, dt, B, C)])
    return jnp.swapaxes(y, 0, 1), h
