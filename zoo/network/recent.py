"""The present level of each channel: what forecasts are relative to."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..typing import InputArray, checked

FLOOR = 0.1
"""Added to deviations, as the root of a sum of squares."""


class Totals(NamedTuple):
    """Sums over the samples so far, each with a weight that falls with its age."""

    weight: Float[Array, ""]
    values: Float[Array, " channels"]
    squares: Float[Array, " channels"]


class Recent(eqx.Module):
    """Mean and deviation of each channel over about the last `samples` samples.

    The weight of a sample falls by a factor e in `samples` samples. With inputs and outputs in
    units of both, a model treats a series alike at any level and any amplitude (as reversible
    instance normalisation, Kim et al., ICLR 2022, which reads the whole window), and can still be
    streamed.
    """

    samples: float = eqx.field(static=True)
    channels: int = eqx.field(static=True)

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length {self.channels}"],
        dt: Float[InputArray, " length"] | None = None,
    ) -> tuple[Float[Array, "length channels"], Float[Array, "length channels"]]:
        """Means and deviations at every sample; `dt` are the intervals before the samples."""
        x = jnp.asarray(x)
        times = jnp.ones_like(x[:, 0]) if dt is None else jnp.asarray(dt, x.dtype)
        return jax.lax.scan(
            lambda carry, now: self.step(carry, *now), self.init_state(), (x, times)
        )[1]

    @checked
    def init_state(self) -> Totals:
        """The carry before the first sample."""
        zeros = jnp.zeros(self.channels)
        return Totals(jnp.zeros(()), zeros, zeros)

    @checked
    def step(
        self,
        carry: Totals,
        x_t: Float[InputArray, "{self.channels}"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[Totals, tuple[Float[Array, " channels"], Float[Array, " channels"]]]:
        """One sample: the next carry, and the mean and deviation with it."""
        x_t = jnp.asarray(x_t)
        kept = jnp.exp(-jnp.asarray(1.0 if dt is None else dt, x_t.dtype) / self.samples)
        new = Totals(jnp.ones((), x_t.dtype), x_t, x_t**2)
        carry = jax.tree.map(lambda before, now: kept * before + now, carry, new)
        mean, square = carry.values / carry.weight, carry.squares / carry.weight
        return carry, (mean, jnp.sqrt(jnp.maximum(square - mean**2, 0) + FLOOR**2))
