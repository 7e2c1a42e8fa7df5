"""How layers start: the ring of LRU, HiPPO-LegS-N of S5, and the random matrices around them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from ..typing import InputArray, checked


@checked
def complex_normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Complex[Array, "..."]:
    """Standard normal real and imaginary parts, independent: variance 2."""
    re, im = jax.random.normal(key, (2, *shape))
    return jax.lax.complex(re, im)


@checked
def ring(
    key: PRNGKeyArray, d_state: int, r_min: float, r_max: float, max_phase: float
) -> tuple[Float[Array, " d_state"], Float[Array, " d_state"]]:
    """`(nu_log, theta_log)` of eigenvalues uniform on a ring (Orvieto et al. 2023, lemma 3.2).

    The area of the ring r_min <= |lam| <= r_max is covered evenly; angles are uniform in
    (0, max_phase) rad.
    """
    if not 0 <= r_min < r_max < 1:
        raise ValueError(
            f"`r_min` and `r_max` must be 0 <= r_min < r_max < 1, got {r_min} and {r_max}"
        )
    if not 0 < max_phase <= 2 * math.pi:
        raise ValueError(f"`max_phase` must be above 0 and at most 2 pi, got {max_phase}")
    radius_key, angle_key = jax.random.split(key)
    tiny = float(jnp.finfo(jnp.float32).eps)
    squared = jax.random.uniform(radius_key, (d_state,), minval=r_min**2 + tiny, maxval=r_max**2)
    angle = max_phase * jax.random.uniform(angle_key, (d_state,), minval=tiny)
    return jnp.log(-0.5 * jnp.log(squared)), jnp.log(angle)


@checked
def hippo_legs_normal(
    size: int, *, both: bool = False
) -> tuple[Complex[np.ndarray, " d_state"], Complex[np.ndarray, "order d_state"]]:
    """Eigenvalues and eigenvectors of HiPPO-LegS-N, one of each conjugate pair, n = size / 2.

    With `both`, both of each pair, n = size.
    The normal part of HiPPO-LegS, A_ij = -1/2 delta_ij + skew(sqrt(2i+1) sqrt(2j+1) / 2)
    (Smith et al., S5, ICLR 2023, section 2.3 and appendix B.1.1): A + I/2 is skew-symmetric, so
    its eigenvalues are -1/2 + i omega and its eigenvectors are unitary.
    """
    if size < 2 or size % 2:
        raise ValueError(f"`size` of a HiPPO block must be even and 2 or more, got {size}")
    scale = np.sqrt(2 * np.arange(size) + 1.0)
    lower = -np.tril(np.outer(scale, scale), -1)
    omega, V = np.linalg.eigh(-0.5j * (lower - lower.T))
    half = (omega > 0) | both
    return -0.5 + 1j * omega[half], V[:, half]


@checked
def log_uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], low: float, high: float
) -> Float[Array, "..."]:
    """Logarithms, uniform between log(low) and log(high)."""
    if not 0 < low <= high:
        raise ValueError(f"`low` and `high` must be 0 < low <= high, got {low} and {high}")
    return jax.random.uniform(key, shape, minval=math.log(low), maxval=math.log(high))


@checked
def inverse_softplus(y: Float[InputArray, "*shape"]) -> Float[Array, "*shape"]:
    """The x of which log(1 + exp(x)) is `y` > 0."""
    return y + jnp.log(-jnp.expm1(-y))
