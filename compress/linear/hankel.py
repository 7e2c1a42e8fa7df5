"""Hankel singular values: the importance of each state of a balanced realisation."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from zoo import DiagonalLTI
from zoo.derivative import both_ways
from zoo.typing import checked

from ..numerics.threads import one_blas_thread
from .gramians import expm1, gramian_factor, modal_weights, real_gramian_factor

Array = jax.Array | np.ndarray
Form = Literal["complex", "real"]


@checked
def hankel_singular_values(lti: DiagonalLTI, *, form: Form = "real") -> Float[Array, " k"]:
    """Hankel singular values sigma of `lti`, descending: sqrt(eig(P Q)) of its two Gramians.

    form="complex": those of the complex system (lam, B, C), as the CompreSSM paper takes them; n.
    form="real": those of the real map u -> y = Re(C x), which is the system of 2n states
    (lam, conj lam), (B, conj B), (C, conj C)/2; 2n of them. D plays no part.

    They are computed in double precision whatever the precision of `lti`, as the singular values of
    Lq^H Lp with graded factors Lp, Lq (see `gramian_factor`), whose small ones keep their relative
    accuracy on CPU. Given concrete arrays, the result is NumPy's float64. Under jit, vmap and grad
    it is rounded to the precision of `lti`. The derivative is in closed form and finite everywhere:
    at a tie it is that of one choice of singular vectors, and values below n eps sigma_1
    are taken as constant.

    Raises ValueError for concrete systems that hold NaN or infinity, or are not stable.
    """
    check_system(lti)
    if is_traced(lti):
        return _traced_values(form, lti.log_lam, lti.B, lti.C)
    with jax.enable_x64(True), one_blas_thread():
        return np.asarray(_singular_values_jit(form, lti.log_lam, lti.B, lti.C))


@checked
def error_bound(sigma: Float[Array, " n"], rank: int) -> Float[Array, ""] | float:
    """Bound 2 * sum(sigma[rank:]) on the H-infinity error of truncating to `rank` balanced states.

    Glover (1984) and Enns (1984); discrete time: Al-Saggaf & Franklin (1987).
    """
    tail = 2 * sigma[rank:].sum()
    return float(tail) if isinstance(sigma, np.ndarray) else tail


def rounding_gain(lti: DiagonalLTI, eps: float) -> float:
    """The gain, to first order, of the error from rounding the numbers of `lti` by `eps`.

    A mode's largest gain is g = |c| |b| / (1 - |lam|). Rounding b, c and the decay changes it by
    some eps g. Rounding log_lam also moves lam by eps |log_lam| along the circle, and the mode's
    resonance is only 1 - |lam| wide: eps |log_lam| / (1 - |lam|) of g, all of it at the circle.
    Each number is assumed to lose `LOST` eps, as numbers stored as logarithms or computed in
    several steps do. The result is the sum over all modes.
    """
    log_lam, B, C = (np.asarray(x).astype(np.complex128) for x in (lti.log_lam, lti.B, lti.C))
    decay = -np.expm1(log_lam.real)
    gain = np.linalg.norm(B, axis=1) * np.linalg.norm(C, axis=0) / decay
    return float(LOST * eps * np.sum(gain * (4 + np.abs(log_lam) / decay)))


LOST = 4.0
"""Relative rounding of a number, in units of its precision's eps."""


LARGEST = 1e100
"""Largest entry of B and C: products of four of them, over a decay, are numbers of float64."""


def check_system(lti: DiagonalLTI, name: str = "lti") -> None:
    """One-line ValueError if `lti` holds NaN or infinity, or is unstable. Skipped if traced."""
    if is_traced(lti):
        return
    for field in ("log_lam", "B", "C", "D"):
        x = np.asarray(getattr(lti, field))
        bad = int(np.sum(~np.isfinite(x)))
        if bad:
            raise ValueError(
                f"{name}.{field} holds NaN or infinity in {bad} of its {x.size} entries"
            )
    for field in ("B", "C"):
        x = np.asarray(getattr(lti, field))
        if not np.issubdtype(x.dtype, np.inexact):
            raise ValueError(f"{name}.{field} must be of complex or real numbers, got {x.dtype}")
        if 0 in x.shape:
            raise ValueError(
                f"{name} must have a state, an input and an output or more, got {field} of shape "
                f"{x.shape}"
            )
        if float(np.max(np.abs(x))) > LARGEST:
            raise ValueError(
                f"{name}.{field} must have entries up to {LARGEST:g}, got {np.max(np.abs(x)):.3g}"
            )
    decay = -np.real(np.asarray(lti.log_lam)).astype(np.float64)
    if decay.min() <= 0:
        radius = np.exp(-decay.min())
        raise ValueError(f"{name} must be stable, of spectral radius below 1, got {radius:.9g}")


def check_pair(one: DiagonalLTI, other: DiagonalLTI, name: str, other_name: str) -> None:
    """`check_system` of both; and ValueError unless they have the same inputs and outputs."""
    check_system(one, name)
    check_system(other, other_name)
    shapes = [(lti.C.shape[0], lti.B.shape[1]) for lti in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{other_name} must have {shapes[0][0]} outputs and {shapes[0][1]} inputs, as {name}, "
            f"got {shapes[1][0]} and {shapes[1][1]}"
        )


def is_traced(lti: DiagonalLTI) -> bool:
    """Whether `lti` is traced by jit, vmap or grad."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(lti))


def balanced_factors(form: Form, log_lam, B, C):
    """Factors Lp, Lq of both Gramians in states scaled so that P_ii = Q_ii, and that scale.

    The factors of P and Q themselves are scale[:, None] * Lp and Lq / scale[:, None].
    """
    of_P, of_Q, scale = balanced_generators(form, log_lam, B, C)
    return balanced_factor(form, 0.0, *of_P)[0], balanced_factor(form, 0.0, *of_Q)[0], scale


def balanced_generators(form: Form, log_lam, B, C):
    """The eigenvalues and the generator of each of these factors, for `balanced_factor`, and the
    scale.

    Scaling by powers of two is exact. It makes the order of pivots and the effect of `tolerance`
    independent of the scaling of the states. Only inside `jax.enable_x64(True)`.
    """
    log_lam, B, C = in_double(log_lam, B, C)
    weight_B, weight_C = modal_weights(log_lam, B), modal_weights(log_lam, jnp.conj(C.T))
    both = (weight_B > 0) & (weight_C > 0)
    ratio = jnp.where(both, weight_B, 1) / jnp.where(both, weight_C, 1)
    scale = _power_of_two(jnp.rint(jnp.log2(ratio) / 4))
    of_Q = jnp.conj(C.T) * scale[:, None]
    if form == "real":
        of_Q = of_Q / 2  # y = Re(C x) is (C x + C* x*) / 2
    return (log_lam, B / scale[:, None]), (jnp.conj(log_lam), of_Q), scale


def balanced_factor(form: Form, tolerance: float, log_lam, generator):
    """One of these factors, and the number of its columns in use: the same program for both.

    For form="real" it is a factor of the doubled system, without the conjugates' rows.
    """
    factor = gramian_factor if form == "complex" else real_gramian_factor
    return factor(log_lam, generator, tolerance=tolerance)


def _power_of_two(k):
    """2**k, exactly, for whole numbers k as floats, |k| < 512.

    Not `jnp.ldexp`: it works on 64-bit integers, and a trace made within `enable_x64` may be
    lowered outside of it, as under jit, where they do not exist.
    """
    size, power = jnp.abs(k), jnp.ones_like(k)
    for bit in reversed(range(9)):
        taken = size >= 2**bit
        size = jnp.where(taken, size - 2**bit, size)
        power = jnp.where(taken, power * 2.0 ** (2**bit), power)
    return jnp.where(k < 0, 1 / power, power)


def in_double(*arrays):
    """The arrays as complex128. Only inside `jax.enable_x64(True)`."""
    return tuple(jnp.asarray(x).astype(jnp.complex128) for x in arrays)


def hankel_matrix(form: Form, Lp, Lq):
    """Lq^H Lp, whose singular values are the HSVs; of the doubled system it is real."""
    if form == "complex":
        return Lq.conj().T @ Lp
    return 2 * (Lq.real.T @ Lp.real + Lq.imag.T @ Lp.imag)


def _singular_values(form, log_lam, B, C):
    Lp, Lq, _ = balanced_factors(form, log_lam, B, C)
    return jnp.linalg.svd(hankel_matrix(form, Lp, Lq), compute_uv=False)


_singular_values_jit = jax.jit(_singular_values, static_argnums=0)


def _traced_values(form, log_lam, B, C):
    """The rules include the conversion to double precision and back, since JAX would transpose it
    only after `enable_x64` has ended.
    """
    rules = (_traced_forward, _traced_tangent, _traced_backward)
    return both_ways(*(partial(rule, form) for rule in rules))(log_lam, B, C)


def _traced_forward(form, log_lam, B, C):
    with jax.enable_x64(True):
        sigma = _singular_values_jit(form, log_lam, B, C)
        return sigma.astype(jnp.finfo(B.dtype).dtype), (log_lam, B, C)


def _traced_tangent(form, primals, tangents):
    with jax.enable_x64(True):
        return _tangent(form, primals, tangents)


def _traced_backward(form, primals, cotangent):
    with jax.enable_x64(True):
        return _gradient(form, primals, cotangent)


@partial(jax.jit, static_argnums=0)
def _tangent(form, primals, tangents):
    slopes = jax.jvp(_near(form, primals), tuple(primals), tuple(tangents))[1]
    return slopes.astype(jnp.finfo(primals[1].dtype).dtype)


@partial(jax.jit, static_argnums=0)
def _gradient(form, primals, cotangent):
    return jax.vjp(_near(form, primals), *primals)[1](cotangent.astype(jnp.float64))


def _near(form, primals):
    """A function with the derivative of the values at `primals`, of sums and products only.

    d sigma_i = ((W dP W^H)_ii + (V^H dQ V)_ii) / 2 with the balancing W = V^-1.
    """
    V, W = _balancing(form, *primals)

    def values(*primals):
        log_lam, B, C = in_double(*primals)
        from_P = _diagonal_of(form, W, log_lam, B)
        from_Q = _diagonal_of(form, jnp.conj(V.T), jnp.conj(log_lam), jnp.conj(C.T))
        return (from_P + (from_Q if form == "complex" else from_Q / 4)) / 2

    return values


def _balancing(form, *primals):
    """V and W of all states; those of HSVs that are zero to working precision are zero."""
    Lp, Lq, scale = balanced_factors(form, *primals)
    U, sigma, Vh = jnp.linalg.svd(hankel_matrix(form, Lp, Lq), full_matrices=False)
    kept = sigma > sigma.size * jnp.finfo(sigma.dtype).eps * sigma[0]
    root = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, sigma, 1)), 0)
    V = scale[:, None] * (Lp @ jnp.conj(Vh.T)) * root
    W = root[:, None] * jnp.conj((Lq / scale[:, None]) @ U).T
    return V, W


def _diagonal_of(form, W, log_lam, B):
    """Diagonal of W P W^H, P in closed form: only its derivative is used.

    For form="real", of [W, W*] [[P, N], [N*, P*]] [W, W*]^H.
    """
    P = (B @ jnp.conj(B.T)) / -expm1(log_lam[:, None] + jnp.conj(log_lam))
    diagonal = jnp.sum(jnp.real((W @ P) * jnp.conj(W)), axis=1)
    if form == "complex":
        return diagonal
    N = (B @ B.T) / -expm1(log_lam[:, None] + log_lam)
    return 2 * (diagonal + jnp.sum(jnp.real((W @ N) * W), axis=1))
