"""Hankel singular values: how much each state of a balanced realisation matters."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from beartype import beartype
from jax.core import Tracer
from jaxtyping import Float, jaxtyped

from zoo import DiagonalLTI

from .factor import expm1, gramian_factor, modal_weights

Array = jax.Array | np.ndarray
Form = Literal["complex", "real"]


@jaxtyped(typechecker=beartype)
def hankel_singular_values(lti: DiagonalLTI, *, form: Form = "complex") -> Float[Array, " k"]:
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
    with jax.enable_x64(True):
        return np.asarray(_singular_values_jit(form, lti.log_lam, lti.B, lti.C))


@jaxtyped(typechecker=beartype)
def error_bound(sigma: Float[Array, " n"], rank: int) -> Float[Array, ""] | float:
    """Bound 2 * sum(sigma[rank:]) on the H-infinity error of truncating to `rank` balanced states.

    Glover (1984) and Enns (1984); discrete time: Al-Saggaf & Franklin (1987).
    """
    tail = 2 * sigma[rank:].sum()
    return float(tail) if isinstance(sigma, np.ndarray) else tail


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
    decay = -np.real(np.asarray(lti.log_lam)).astype(np.float64)
    if decay.size == 0:
        raise ValueError(f"{name} has no states, allowed: 1 or more")
    if decay.min() <= 0:
        radius = np.exp(-decay.min())
        raise ValueError(f"{name} is unstable: spectral radius {radius:.9g}, allowed: below 1")


def is_traced(lti: DiagonalLTI) -> bool:
    """Whether `lti` is seen from within jit, vmap or grad."""
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(lti))


def balanced_factors(log_lam, B, C, tolerance: float = 0.0):
    """Factors of both Gramians in states scaled so that P_ii = Q_ii, and that scale.

    Returns (Lp, rank of Lp, Lq, rank of Lq, scale); the factors of P and Q themselves are
    scale[:, None] * Lp and Lq / scale[:, None]. Scaling by powers of two is exact; it makes the
    order of pivots, and what `tolerance` means, the same for every scaling of the states.
    """
    weight_B, weight_C = modal_weights(log_lam, B), modal_weights(log_lam, jnp.conj(C.T))
    both = (weight_B > 0) & (weight_C > 0)
    ratio = jnp.where(both, weight_B, 1) / jnp.where(both, weight_C, 1)
    scale = jnp.ldexp(jnp.ones_like(ratio), jnp.rint(jnp.log2(ratio) / 4).astype(jnp.int32))
    Lp, rank_p = gramian_factor(log_lam, B / scale[:, None], tolerance=tolerance)
    Lq, rank_q = gramian_factor(
        jnp.conj(log_lam), jnp.conj(C.T) * scale[:, None], tolerance=tolerance
    )
    return Lp, rank_p, Lq, rank_q, scale


def in_double(form: Form, log_lam, B, C):
    """(log_lam, B, C) in double precision; of the doubled system if form is "real".

    Only inside `jax.enable_x64(True)`.
    """
    log_lam, B, C = (jnp.asarray(x).astype(jnp.complex128) for x in (log_lam, B, C))
    if form == "complex":
        return log_lam, B, C
    return (
        jnp.concatenate([log_lam, jnp.conj(log_lam)]),
        jnp.concatenate([B, jnp.conj(B)]),
        jnp.concatenate([C, jnp.conj(C)], axis=1) / 2,
    )


def _singular_values(form, log_lam, B, C):
    Lp, _, Lq, _, _ = balanced_factors(*in_double(form, log_lam, B, C))
    return jnp.linalg.svd(jnp.conj(Lq.T) @ Lp, compute_uv=False)


_singular_values_jit = jax.jit(_singular_values, static_argnums=0)


# The rule covers the way into double precision and back: what JAX would transpose by itself, it
# would transpose after `enable_x64` has ended.
@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _traced_values(form, log_lam, B, C):
    with jax.enable_x64(True):
        sigma = _singular_values(form, log_lam, B, C)
        return sigma.astype(jnp.finfo(B.dtype).dtype)


def _traced_values_fwd(form, log_lam, B, C):
    return _traced_values(form, log_lam, B, C), (log_lam, B, C)


def _traced_values_bwd(form, primals, cotangent):
    """d sigma_i = ((W dP W^H)_ii + (V^H dQ V)_ii) / 2 with the balancing W = V^-1."""
    with jax.enable_x64(True):
        V, W = _balancing(*in_double(form, *primals))
        weight = cotangent.astype(jnp.float64) / 2

        def weighted_sum(*primals):
            P, Q = _gramians(*in_double(form, *primals))
            from_P = jnp.sum(jnp.real((W @ P) * jnp.conj(W)), axis=1)
            from_Q = jnp.sum(jnp.real(jnp.conj(V) * (Q @ V)), axis=0)
            return jnp.sum(weight * (from_P + from_Q))

        return jax.grad(weighted_sum, argnums=(0, 1, 2))(*primals)


_traced_values.defvjp(_traced_values_fwd, _traced_values_bwd)


def _balancing(log_lam, B, C):
    """V and W of all states; those of HSVs that are zero to working precision are zero."""
    Lp, _, Lq, _, scale = balanced_factors(log_lam, B, C)
    U, sigma, Vh = jnp.linalg.svd(jnp.conj(Lq.T) @ Lp, full_matrices=False)
    kept = sigma > sigma.size * jnp.finfo(sigma.dtype).eps * sigma[0]
    root = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, sigma, 1)), 0)
    V = scale[:, None] * (Lp @ jnp.conj(Vh.T)) * root
    W = root[:, None] * jnp.conj((Lq / scale[:, None]) @ U).T
    return V, W


def _gramians(log_lam, B, C):
    """Both Gramians in closed form: only their derivative is used."""
    gap = -expm1(log_lam[:, None] + jnp.conj(log_lam))
    return (B @ jnp.conj(B.T)) / gap, (jnp.conj(C.T) @ C) / jnp.conj(gap)
