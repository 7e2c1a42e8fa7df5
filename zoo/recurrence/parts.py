"""Complex numbers as real and imaginary parts, and sizes, for the forms of the recurrence."""

import jax.numpy as jnp

from ..typing import checked


@checked
def states_before(log_lam, u, x0):
    """The first states [b n]: `x0`, or zeros."""
    return jnp.zeros((u.shape[0], len(log_lam)), log_lam.dtype) if x0 is None else x0


@checked
def real_states(x):
    """[b n] -> [b 2 n], real and imaginary parts."""
    return jnp.stack(two_parts(x), axis=1)


@checked
def as_rows(x):
    """[... n] -> [k n]."""
    return x.reshape(-1, x.shape[-1])


@checked
def two_parts(x):
    """Real and imaginary parts."""
    return jnp.real(x), jnp.imag(x)


@checked
def parts_times(B, u):
    """Real and imaginary parts of rows B u_k, u real."""
    return u @ jnp.real(B).T, u @ jnp.imag(B).T


@checked
def real_output(C):
    """[p 2n], for the product with parts of states side by side to be Re(C x)."""
    return jnp.concatenate([jnp.real(C), -jnp.imag(C)], axis=1)


@checked
def real_of_times(C, x):
    """Rows Re(C x_k), from the parts of x."""
    return x[0] @ jnp.real(C).T - x[1] @ jnp.imag(C).T


@checked
def fast_size(least: int) -> int:
    """The first even number from `least` on of the form 2^i 3^j 5^k, for which FFTs are fast."""
    size = max(2, least + least % 2)
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2
