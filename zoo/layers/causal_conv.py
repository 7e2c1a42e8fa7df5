"""The short causal convolution in front of a selective layer, channel by channel."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..masks import check_length
from ..recurrence.pieces import window_before
from ..typing import Count, InputArray, checked
from .half import is_half


class CausalConv(eqx.Module):
    """y_k[c] = bias[c] + sum_i weight[c, i] x_{k - K + 1 + i}[c]: each channel by itself.

    The window it carries holds the last K inputs, the newest one last, as Hugging Face's does.
    """

    weight: Float[Array, "channels taps"]
    bias: Float[Array, " channels"] | None

    @classmethod
    @checked
    def init(cls, channels: int, width: int, *, bias: bool, key: PRNGKeyArray) -> "CausalConv":
        """Weights and bias uniform within 1 / sqrt(width)."""
        weight_key, bias_key = jax.random.split(key)
        bound = 1 / math.sqrt(width)
        weight = jax.random.uniform(weight_key, (channels, width), minval=-bound, maxval=bound)
        start = jax.random.uniform(bias_key, (channels,), minval=-bound, maxval=bound)
        return cls(weight, start if bias else None)

    @checked
    def init_state(self) -> Float[Array, "taps channels"]:
        """The window before the first sample: zeros."""
        return jnp.zeros(self.weight.shape[::-1], self.weight.dtype)

    @checked
    def run(
        self,
        window: Float[InputArray, "{self.weight.shape[1]} {self.weight.shape[0]}"],
        x: Float[InputArray, "length channels"],
        length: Count | None = None,
    ) -> tuple[Float[Array, "taps channels"], Float[Array, "length channels"]]:
        """The window after the first `length` samples (all if not given), and the outputs.

        Sums are in the precision of the weights, outputs in half precision where `x` is.
        """
        width, L = self.weight.shape[1], x.shape[0]
        if length is not None:
            check_length(length, L)
        padded = jnp.concatenate([window_before(jnp.asarray(window), x), x])
        y = jnp.zeros_like(x) if self.bias is None else jnp.broadcast_to(self.bias, x.shape)
        for i in range(width):
            y = y + self.weight[:, i] * padded[i + 1 : i + 1 + L]
        window = jax.lax.dynamic_slice_in_dim(padded, L if length is None else length, width)
        return window, y.astype(x.dtype) if is_half(x) else y

    @checked
    def step(
        self,
        window: Float[InputArray, "{self.weight.shape[1]} {self.weight.shape[0]}"],
        x_t: Float[InputArray, " channels"],
    ) -> tuple[Float[Array, "taps channels"], Float[Array, " channels"]]:
        """One sample of `run`."""
        window, y = self.run(window, x_t[None])
        return window, y[0]
