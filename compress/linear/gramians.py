"""Factors of the Gramians of a diagonal system, straight from its parameters.

P - Lam P Lam^H = B B^H has the low rank of B ("displacement structure"), so P = L L^H follows
from the generator B by the generalized Schur recursion (Kailath & Sayed, SIAM Review 37, 1995;
Gohberg, Kailath & Olshevsky 1995 for the pivoting): no entry of P is ever formed or subtracted.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float, Int

from zoo.typing import checked

Array = jax.Array | np.ndarray


@checked
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
    columns, steps = _recursion(_eliminate, log_lam, B, tolerance)
    return columns[:, 0].T, steps


@checked
def real_gramian_factor(
    log_lam: Complex[Array, " n"], B: Complex[Array, "n m"], *, tolerance: float = 0.0
) -> tuple[Complex[Array, "n k"], Int[Array, ""]]:
    """A factor of the state covariance x x^H and x x^T alike, for real white inputs; k = 2n.

    Of the system (lam, conj lam), (B, conj B) the Gramian is [[P, N], [N*, P*]] with
    N_ij = (B B^T)_ij / (1 - lam_i lam_j). Its factor is [L; conj L] here: P = L L^H, N = L L^T;
    (Re L, Im L) factors the real state's Gramian. Each step eliminates a mode and its conjugate,
    by real rotations of the generator and arithmetic on half of the rows, at the cost of a step of
    `gramian_factor`. Columns descend in size; `tolerance` and the rest are as there.
    """
    if B.shape[1] == 1:
        B = jnp.pad(jnp.asarray(B), ((0, 0), (0, 1)))
    columns, _ = _recursion(_eliminate_pair, log_lam, B, tolerance)
    columns = columns.reshape(-1, log_lam.shape[0])
    # A pair's second column can be much smaller than the next pair's first, or zero.
    size = jnp.max(jnp.abs(columns), axis=1)
    _, order = jax.lax.sort((-size, jax.lax.iota(jnp.int32, size.size)), num_keys=1)
    return columns[order].T, jnp.sum(size > 0)


def _recursion(eliminate, log_lam, B, tolerance: float):
    """The columns [n c n] of all steps, c from each, and the number of steps made."""
    log_lam, B = jnp.asarray(log_lam), jnp.asarray(B)
    n = log_lam.size
    decay = -jnp.expm1(2 * jnp.real(log_lam))  # 1 - |lam|^2
    # planar, with the states last: twice as fast as complex numbers on CPU
    generator = jnp.real(B).T, jnp.imag(B).T

    def diagonal(generator):
        real, imag = generator
        return jnp.sum(real * real + imag * imag, axis=0) / decay

    if tolerance == 0:

        def full_step(generator, _):
            d = diagonal(generator)
            generator, columns = eliminate(log_lam, decay, generator, _largest(d))
            return generator, (columns, jnp.max(d) > 0)

        _, (columns, used) = jax.lax.scan(full_step, generator, length=n)
        return columns, jnp.sum(used)

    def stop_above(state):
        k, _, d, _, floor = state
        return (k < n) & (jnp.max(d) > floor)

    def step(state):
        k, generator, d, columns, floor = state
        generator, new = eliminate(log_lam, decay, generator, _largest(d))
        return k + 1, generator, diagonal(generator), columns.at[k].set(new), floor

    d = diagonal(generator)
    per_step = 2 if eliminate is _eliminate_pair else 1
    empty = jnp.zeros((n, per_step, n), B.dtype)
    state = (jnp.array(0), generator, d, empty, tolerance * jnp.max(d))
    k, _, _, columns, _ = jax.lax.while_loop(stop_above, step, state)
    return columns, k


def _eliminate(log_lam, decay, generator, pivot):
    """One step: the factor's column [1 n] for `pivot`, and the generator of the Schur complement.

    The generator, real + i imag of shape [m n], is turned by a Householder reflection until the
    pivot's column is [x, 0, ...]. The first row then gives the factor's column and is multiplied
    by the Blaschke factor (lam_i - lam_p) / (1 - lam_i lam_p*). This product keeps small
    Gramians' digits: subtracting the column's outer product would lose them.
    """
    real, imag = generator
    g_re, g_im = _at(real, pivot), _at(imag, pivot)
    norm, head = jnp.sqrt(jnp.sum(g_re * g_re + g_im * g_im)), jnp.hypot(g_re[0], g_im[0])
    # u = g + phase(g_0) |g| e_1, and the reflection I - beta u u^H
    phase_re, phase_im = _divide(g_re[0], head, 1), _divide(g_im[0], head, 0)
    u_re, u_im = g_re.at[0].add(phase_re * norm), g_im.at[0].add(phase_im * norm)
    beta = _divide(1, norm * (norm + head), 0)
    u = jnp.stack([u_re, u_im])
    by_re, by_im = u @ real, u @ imag  # each matrix is read once
    t_re, t_im = beta * (by_re[0] + by_im[1]), beta * (by_im[0] - by_re[1])
    first = jax.lax.complex(
        real[0] - (u_re[0] * t_re - u_im[0] * t_im), imag[0] - (u_im[0] * t_re + u_re[0] * t_im)
    )
    column, first = _blaschke(log_lam, log_lam[pivot], decay[pivot], first)
    top = (jnp.arange(real.shape[0]) == 0)[:, None]
    keep = jnp.arange(real.shape[1]) != pivot  # the pivot's own column is now zero, exactly
    real = jnp.where(top, jnp.real(first), real - (u_re[:, None] * t_re - u_im[:, None] * t_im))
    imag = jnp.where(top, jnp.imag(first), imag - (u_im[:, None] * t_re + u_re[:, None] * t_im))
    return (real * keep, imag * keep), column[None]


def _eliminate_pair(log_lam, decay, generator, pivot):
    """One step for a mode p and its conjugate: two columns [2 n], and the next generator.

    Only the rows of (lam, B) are carried; those of (lam*, B*) are their conjugates, before and
    after. Two real reflections turn the pivot's column into [x, i y, 0, ...]. On the first two rows
    v = (v_1, v_2) act p's and then p*'s Blaschke factor, each in its pivot's direction:
    Phi(z) = U_1 diag(bl(z, p), 1) U_2 diag(bl(z, p*), 1) U_3, all U unitary; the last is such
    that Phi(1) = I, which makes Phi(z*) = Phi(z)* and the next generator conjugate again.
    """
    real, imag = generator
    g_re, g_im = _at(real, pivot), _at(imag, pivot)
    u, beta = _reflection(g_re, 0)
    g_im = g_im - beta * jnp.sum(u * g_im) * u
    w, gamma = _reflection(g_im, 1)
    overlap = gamma * jnp.sum(u * w)
    uw = jnp.stack([u, w])
    t_re, t_im = uw @ real, uw @ imag  # both reflections in one pass: I - u a - w b
    t_re, t_im = (
        jnp.stack([beta * t[0], gamma * t[1] - overlap * beta * t[0]]) for t in (t_re, t_im)
    )
    top_re, top_im = (x[:2] - uw[:, :2].T @ t for x, t in ((real, t_re), (imag, t_im)))
    v = jax.lax.complex(top_re, top_im)

    here, there = log_lam[pivot], jnp.conj(log_lam[pivot])
    at_p = _at(v, pivot)
    U1 = _onto_first(at_p)
    first, other = U1.T @ v
    column1, first = _blaschke(log_lam, here, decay[pivot], first)
    # the conjugate's row, v_p* U1, after the first step
    at_q = U1.T @ jnp.conj(at_p)
    before = at_q[0]
    gap = -expm1(2 * there)  # 1 - (lam_p*)^2
    apart = expm1(there - here)
    # an angle of pi is real up to rounding, which the gap of a slow mode would magnify
    apart = jnp.where(jnp.abs(apart) > 8 * jnp.finfo(decay.dtype).eps, apart, 0)
    at_q = at_q.at[0].multiply(jnp.exp(here) * apart / gap)
    size, rest = jnp.sqrt(jnp.sum(jnp.abs(at_p) ** 2)), jnp.sqrt(jnp.sum(jnp.abs(at_q) ** 2))
    # A real mode that is driven in one direction has no second column.
    second = rest > 8 * jnp.finfo(rest.dtype).eps * size
    U2 = jnp.where(second, _onto_first(at_q), jnp.eye(2, dtype=at_q.dtype))
    both = U2.T @ jnp.stack([first, other])
    column2, moved = _blaschke(log_lam, there, decay[pivot], both[0])
    column2 = jnp.where(second, column2, 0)
    one = jnp.zeros((), log_lam.dtype)
    turn1, turn2 = (_blaschke(one, q, decay[pivot], one + 1)[1] for q in (here, there))
    Phi = (
        (U1 * jnp.stack([turn1, one + 1])) @ U2 * jnp.stack([jnp.where(second, turn2, 1), one + 1])
    )
    after = jnp.conj(Phi) @ jnp.stack([jnp.where(second, moved, both[0]), both[1]])

    e = before * decay[pivot] / gap  # as size and t, times 1 / sqrt(decay)
    columns = _conjugate_columns(column1, column2, e, jnp.where(second, rest, 0))

    top = jnp.arange(real.shape[0])[:, None] < 2
    keep = jnp.arange(real.shape[1]) != pivot
    after = jnp.pad(after, ((0, real.shape[0] - 2), (0, 0)))
    real = jnp.where(top, jnp.real(after), real - uw.T @ t_re)
    imag = jnp.where(top, jnp.imag(after), imag - uw.T @ t_im)
    return (real * keep, imag * keep), columns


def _conjugate_columns(column1, column2, e, t):
    """The two columns [2 n] of a pair, such that the conjugate's are their conjugates.

    The columns (l_1, l_2) of the doubled system have rows (s, 0) at p and (e, t) at p*: they are
    turned by K, the unitary matrix that makes these rows conjugates of each other.
    """
    modulus = jnp.abs(e)
    half = 0.5 * jnp.arctan2(t, modulus)
    turn = jnp.sqrt(jnp.where(modulus > 0, e / jnp.where(modulus > 0, modulus, 1), 1))
    l1, l2 = column1 * jnp.conj(turn), column2 * turn
    cos, sin = jnp.cos(half), jnp.sin(half)
    return jnp.stack([cos * l1 + sin * l2, 1j * (sin * l1 - cos * l2)])


def _blaschke(log_lam, log_pole, decay, row):
    """The kernel's column and the row times the Blaschke factor, both of the pole q.

    sqrt(1 - |q|^2) / (1 - lam_i q*) and (lam_i - q) / (1 - lam_i q*), times `row`. The difference
    is taken between logarithms: clustered eigenvalues keep 5 to 40 times more accuracy than
    with lam_i - q (measured on clusters of width 1e-2 to 1e-6).
    """
    gap = -expm1(log_lam + jnp.conj(log_pole))
    return jnp.sqrt(decay) * row / gap, row * (jnp.exp(log_pole) * expm1(log_lam - log_pole) / gap)


def _reflection(g, k: int):
    """u and beta of the real reflection I - beta u u^T that maps g[k:] to a multiple of e_k."""
    g = jnp.where(jnp.arange(g.size) < k, 0, g)
    norm = jnp.sqrt(jnp.sum(g * g))
    u = g.at[k].add(jnp.where(g[k] < 0, -norm, norm))
    return u, _divide(1, norm * (norm + jnp.abs(g[k])), 0)


def _onto_first(v):
    """A unitary U with v U = (|v|, 0) for a row v of two numbers; the identity for zero."""
    norm = jnp.sqrt(jnp.sum(jnp.abs(v) ** 2))
    a, b = _divide(v[0], norm, 1), _divide(v[1], norm, 0)
    return jnp.stack([jnp.stack([jnp.conj(a), -b]), jnp.stack([jnp.conj(b), a])])


def _divide(a, b, otherwise):
    """a / b, or `otherwise` where b = 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), otherwise)


def _at(x, k):
    return jax.lax.dynamic_index_in_dim(x, k, axis=1, keepdims=False)


def _largest(d):
    # not argmax: traced within enable_x64 but lowered outside of it, as under jit, it fails
    index = jax.lax.iota(jnp.int32, d.size)
    return jnp.min(jnp.where(d == jnp.max(d), index, d.size - 1))


def expm1(z: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """exp(z) - 1 with all its digits near z = 0: 1 - lam_i lam_j* and lam_i - lam_j need them."""
    half = jnp.sin(jnp.imag(z) / 2)
    real = jnp.expm1(jnp.real(z)) * jnp.cos(jnp.imag(z)) - 2 * half * half
    return jax.lax.complex(real, jnp.exp(jnp.real(z)) * jnp.sin(jnp.imag(z)))


@checked
def modal_weights(log_lam: Complex[Array, " n"], B: Complex[Array, "n m"]) -> Float[Array, " n"]:
    """Diagonal of the controllability Gramian: |b_i|^2 / (1 - |lam_i|^2)."""
    return jnp.sum(jnp.abs(B) ** 2, axis=1) / -jnp.expm1(2 * jnp.real(log_lam))
