"""Factors of the Gramians of a diagonal system, straight from its parameters.

P - Lam P Lam^H = B B^H has the low rank of B ("displacement structure"), so P = L L^H follows
from the generator B by the generalized Schur recursion (Kailath & Sayed, SIAM Review 37, 1995;
Gohberg, Kailath & Olshevsky 1995 for the pivoting): no entry of P is ever formed or subtracted.
"""

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jaxtyping import Complex, Float, Int, jaxtyped

Array = jax.Array | np.ndarray


@jaxtyped(typechecker=beartype)
def gramian_factor(
    log_lam: Complex[Array, " n"], B: Complex[Array, "n m"], *, tolerance: float = 0.0
) -> tuple[Complex[Array, "n n"], Int[Array, ""]]:
    """A factor L of the controllability Gramian P = L L^H, P_ij = (B B^H)_ij / (1 - lam_i lam_j*).

    Returns L and the number of its columns in use; those behind are zero. Columns come in the
    order of the pivots, the largest remaining diagonal entry of P first, so L is graded: row
    permutation times a lower trapezoid times a descending diagonal. With `tolerance` > 0 the
    recursion stops once every remaining diagonal entry is below `tolerance` times the first pivot;
    it then costs O(n m) per column in use. With 0 it makes n steps (a `scan`, cheaper under vmap).

    The observability Gramian's factor is `gramian_factor(conj(log_lam), conj(C.T))`. Works in the
    precision of its arguments. Not meant to be differentiated: the Gramian does not determine L.
    """
    n = log_lam.shape[0]
    log_lam, B = jnp.asarray(log_lam), jnp.asarray(B)
    real, imag = jnp.real(B).T, jnp.imag(B).T
    L = jnp.zeros((n, n), B.dtype)
    decay = -jnp.expm1(2 * jnp.real(log_lam))  # 1 - |lam|^2

    def diagonal(generator):
        real, imag = generator
        return jnp.sum(real * real + imag * imag, axis=0) / decay

    if tolerance == 0:

        def full_step(generator, _):
            d = diagonal(generator)
            generator, column = _eliminate(log_lam, decay, generator, _largest(d))
            return generator, (column, jnp.max(d) > 0)

        _, (L, used) = jax.lax.scan(full_step, (real, imag), length=n)
        return L.T, jnp.sum(used)

    def stop_above(state):
        k, _, d, _, floor = state
        return (k < n) & (jnp.max(d) > floor)

    def step(state):
        k, generator, d, L, floor = state
        generator, column = _eliminate(log_lam, decay, generator, _largest(d))
        return k + 1, generator, diagonal(generator), L.at[k].set(column), floor

    d = diagonal((real, imag))
    state = (jnp.array(0), (real, imag), d, L, tolerance * jnp.max(d))
    k, _, _, L, _ = jax.lax.while_loop(stop_above, step, state)
    return L.T, k


def _eliminate(log_lam, decay, generator, pivot):
    """One step: the factor's column for `pivot`, and the generator of the Schur complement.

    The generator, real + i imag of shape [m n], is turned by a Householder reflection until the
    pivot's column is [x, 0, ...]. The first row then gives the factor's column and is multiplied
    by the Blaschke factor (lam_i - lam_p) / (1 - lam_i lam_p*). This product keeps small
    Gramians' digits: subtracting the column's outer product would lose them. (Planar arrays with
    the states last: twice as fast as complex ones on CPU.)
    """
    real, imag = generator
    n = real.shape[1]
    g_re = jax.lax.dynamic_index_in_dim(real, pivot, axis=1, keepdims=False)
    g_im = jax.lax.dynamic_index_in_dim(imag, pivot, axis=1, keepdims=False)
    norm = jnp.sqrt(jnp.sum(g_re * g_re + g_im * g_im))
    head = jnp.hypot(g_re[0], g_im[0])
    # u = g + phase(g_0) |g| e_1, and the reflection I - beta u u^H
    phase_re = jnp.where(head > 0, g_re[0] / jnp.where(head > 0, head, 1), 1)
    phase_im = jnp.where(head > 0, g_im[0] / jnp.where(head > 0, head, 1), 0)
    u_re, u_im = g_re.at[0].add(phase_re * norm), g_im.at[0].add(phase_im * norm)
    beta = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm * (norm + head), 1), 0)
    t_re, t_im = beta * (u_re @ real + u_im @ imag), beta * (u_re @ imag - u_im @ real)
    first = jax.lax.complex(
        real[0] - (u_re[0] * t_re - u_im[0] * t_im), imag[0] - (u_im[0] * t_re + u_re[0] * t_im)
    )
    here = log_lam[pivot]
    gap = -expm1(log_lam + jnp.conj(here))  # 1 - lam_i lam_p*
    column = jnp.sqrt(decay[pivot]) * first / gap
    first = first * (jnp.exp(here) * expm1(log_lam - here) / gap)
    top = (jnp.arange(real.shape[0]) == 0)[:, None]
    keep = jnp.arange(n) != pivot  # the pivot's own column is now zero, exactly
    real = jnp.where(top, jnp.real(first), real - (u_re[:, None] * t_re - u_im[:, None] * t_im))
    imag = jnp.where(top, jnp.imag(first), imag - (u_im[:, None] * t_re + u_re[:, None] * t_im))
    return (real * keep, imag * keep), column


def _largest(d):
    # not argmax: traced within enable_x64 but lowered outside of it, as under jit, it fails
    index = jax.lax.iota(jnp.int32, d.size)
    return jnp.min(jnp.where(d == jnp.max(d), index, d.size - 1))


def expm1(z: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """exp(z) - 1 with all its digits near z = 0: 1 - lam_i lam_j* and lam_i - lam_j need them."""
    half = jnp.sin(jnp.imag(z) / 2)
    real = jnp.expm1(jnp.real(z)) * jnp.cos(jnp.imag(z)) - 2 * half * half
    return jax.lax.complex(real, jnp.exp(jnp.real(z)) * jnp.sin(jnp.imag(z)))


@jaxtyped(typechecker=beartype)
def modal_weights(log_lam: Complex[Array, " n"], B: Complex[Array, "n m"]) -> Float[Array, " n"]:
    """Diagonal of the controllability Gramian: |b_i|^2 / (1 - |lam_i|^2)."""
    return jnp.sum(jnp.abs(B) ** 2, axis=1) / -jnp.expm1(2 * jnp.real(log_lam))
