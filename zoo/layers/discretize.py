"""From a continuous-time diagonal system x' = Lambda x + B u to samples, and back.

Both methods give `(log_lam, gain)` of x_k = exp(log_lam) x_{k-1} + gain * (B u_k), and both keep
their digits for short steps. `Lambda` is in rad (and nepers) per unit of time, `step` in time.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..typing import InputArray, checked

Discretization = Literal["zoh", "bilinear"]


@checked
def zero_order_hold(
    Lambda: Complex[InputArray, "*shape"], step: Float[InputArray, "*shape"]
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """The input is held over each step: log_lam = z, gain = (exp(z) - 1) / Lambda (S5, eq. 6)."""
    z = Lambda * step
    return z, step * _phi(z)


@checked
def inverse_zero_order_hold(
    log_lam: Complex[InputArray, "*shape"], step: Float[InputArray, "*shape"]
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """`(Lambda, gain)` of which `zero_order_hold` makes `log_lam`."""
    return log_lam / step, step * _phi(log_lam)


@checked
def bilinear(
    Lambda: Complex[InputArray, "*shape"], step: Float[InputArray, "*shape"]
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """The trapezoidal rule: lam = (1 + z/2) / (1 - z/2), gain = step / (1 - z/2) (Tustin)."""
    half = Lambda * step / 2
    return jnp.log1p(half) - jnp.log1p(-half), step / (1 - half)


@checked
def inverse_bilinear(
    log_lam: Complex[InputArray, "*shape"], step: Float[InputArray, "*shape"]
) -> tuple[Complex[Array, "*shape"], Complex[Array, "*shape"]]:
    """`(Lambda, gain)` of which `bilinear` makes `log_lam`, up to whole turns of its angle."""
    half = jnp.tanh(log_lam / 2)
    return 2 * half / step, step / (1 - half)


class Rule(NamedTuple):
    """A discretization and its inverse."""

    forward: Callable
    inverse: Callable


RULES: dict[Discretization, Rule] = {
    "zoh": Rule(zero_order_hold, inverse_zero_order_hold),
    "bilinear": Rule(bilinear, inverse_bilinear),
}


def _phi(z: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """(exp(z) - 1) / z, one at zero; finite in value and gradient everywhere."""
    small = jnp.abs(z) < 1e-4
    safe = jnp.where(small, 1, z)
    return jnp.where(small, 1 + z / 2 + z**2 / 6, jnp.expm1(safe) / safe)
