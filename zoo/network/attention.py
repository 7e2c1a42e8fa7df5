"""Sliding-window attention, for use between recurrent blocks."""

import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..layers.affine import Linear
from ..layers.half import widened
from ..masks import check_length
from ..typing import Count, InputArray, checked


class Window(NamedTuple):
    """The carry of attention: keys and values of the last `window` - 1 samples."""

    keys: Float[Array, "past heads headdim"]
    values: Float[Array, "past heads headdim"]
    seen: Int[Array, ""]
    """The number of samples so far. Entries for earlier samples are not used."""


class WindowAttention(eqx.Module):
    """Causal attention of every sample to itself and the `window` - 1 samples before it.

        o_k = sum over j of softmax_j(q_k . k_j / sqrt(headdim) + bias[head, k - j]) v_j

    Positions enter by a learned bias for each lag, which starts at zero. Outputs do not depend on
    where a sequence began. Time and memory are linear in its length. It is called, run and stepped
    like an `AbstractSSM`. It is not a state-space layer, and `compress` leaves it unchanged.
    """

    is_causal: ClassVar[bool] = True

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    bias: Float[Array, "heads window"]

    @classmethod
    @checked
    def init(cls, d_model: int, *, heads: int, window: int, key: PRNGKeyArray) -> "WindowAttention":
        """ValueError unless `heads` divides `d_model` and `window` is 1 or more."""
        if heads < 1 or d_model % heads:
            raise ValueError(f"`heads` must divide d_model={d_model}, got {heads}")
        if window < 1:
            raise ValueError(f"`window` must be 1 or more samples, got {window}")
        parts = (
            Linear.init(d_model, d_model, use_bias=False, key=each)
            for each in jax.random.split(key, 4)
        )
        return cls(*parts, bias=jnp.zeros((heads, window)))

    @property
    def d_model(self) -> int:
        """Channels of the input and of the output."""
        return self.query.weight.shape[1]

    @checked
    def __call__(
        self,
        u: Float[InputArray, "length {self.d_model}"],
        dt: Float[InputArray, " length"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "length {self.d_model}"]:
        """The output sequence. Intervals `dt` are ignored: lags count samples."""
        return self.run(self.init_state(), u)[1]

    @checked
    def init_state(self) -> Window:
        """The carry before the first sample."""
        heads, window = self.bias.shape
        nothing = jnp.zeros((window - 1, heads, self.d_model // heads), self.key.weight.dtype)
        return Window(nothing, nothing, jnp.zeros((), jnp.int32))

    @checked
    def step(
        self,
        carry: Window,
        u_t: Float[InputArray, "{self.d_model}"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[Window, Float[Array, "{self.d_model}"]]:
        """One sample: the next carry and the output."""
        carry, y = self.run(carry, u_t[None])
        return carry, y[0]

    @checked
    def run(
        self,
        carry: Window,
        u: Float[InputArray, "length {self.d_model}"],
        length: Count | None = None,
    ) -> tuple[Window, Float[Array, "length {self.d_model}"]]:
        """A piece of a sequence, as `AbstractSSM.run`."""
        L, past = len(u), carry.keys.shape[0]
        if length is not None:
            check_length(length, L)
        if L == 0:
            return carry, jnp.zeros_like(u)
        q, k, v = (self._heads(linear(u)) for linear in (self.query, self.key, self.value))
        keys = jnp.concatenate([carry.keys, k.astype(carry.keys.dtype)])
        values = jnp.concatenate([carry.values, v.astype(carry.values.dtype)])
        y = self._attend(q, keys, values, past - carry.seen)
        number = L if length is None else length
        keys, values = (jax.lax.dynamic_slice_in_dim(x, number, past) for x in (keys, values))
        seen = jnp.minimum(carry.seen + number, past).astype(jnp.int32)
        return Window(keys, values, seen), self.output(y.reshape(L, self.d_model).astype(u.dtype))

    def _heads(self, x: Float[Array, "length d_model"]) -> Float[Array, "length heads headdim"]:
        return x.reshape(len(x), len(self.bias), -1)

    def _attend(self, q, keys, values, first):
        """Outputs for queries [L h d]; query i sees keys i ... i + window - 1. Keys before `first`
        are before the beginning of the sequence. Queries are taken in blocks of `window`, each with
        the keys of two blocks.
        """
        L, (_, W) = len(q), self.bias.shape
        blocks = -(-L // W)
        more = blocks * W - L
        q, keys, values = (jnp.pad(x, ((0, more), (0, 0), (0, 0))) for x in (q, keys, values))
        lag = jnp.arange(W)[:, None] + W - 1 - jnp.arange(2 * W - 1)
        seen = (lag >= 0) & (lag < W)
        bias = widened(self.bias)[:, jnp.clip(lag, 0, W - 1)]  # [h W 2W-1]

        def block(k):
            near_q = jax.lax.dynamic_slice_in_dim(q, k * W, W)
            near_k, near_v = (
                jax.lax.dynamic_slice_in_dim(x, k * W, 2 * W - 1) for x in (keys, values)
            )
            scores = widened(jnp.einsum("qhd,khd->hqk", near_q, near_k))
            scores = scores / math.sqrt(q.shape[-1]) + bias
            there = seen & (k * W + jnp.arange(2 * W - 1) >= first)
            weights = jax.nn.softmax(jnp.where(there, scores, -jnp.inf), axis=-1)
            return jnp.einsum("hqk,khd->qhd", weights.astype(near_v.dtype), near_v)

        return jax.vmap(block)(jnp.arange(blocks)).reshape(blocks * W, *q.shape[1:])[:L]
