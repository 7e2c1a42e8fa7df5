"""Queries, keys and values of linear attention: projections, convolution, maps, normalisation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..typing import Count, InputArray, checked
from .affine import Linear, product
from .causal_conv import CausalConv
from .joined import joined
from .matrix import AbstractMatrix

Feature = Literal["identity", "silu", "unit"]
"""How queries and keys are transformed: not at all, by SiLU, or by SiLU and division by the
length."""

UNIT_EPSILON = 1e-6
"""Added to the squared lengths of queries and keys."""

Triple = tuple[
    Float[Array, "*lead key_heads d_state"],
    Float[Array, "*lead key_heads d_state"],
    Float[Array, "*lead heads values"],
]


class KeyMaps(eqx.Module):
    """Maps after projection, convolution and SiLU, from K to fewer: q -> q q_map, k -> k k_map."""

    q: Float[Array, "key_heads keys d_state"]
    k: Float[Array, "key_heads keys d_state"]


class QueryKeyValue(eqx.Module):
    """q, k, v = silu(conv1d(project(u))) of each head; maps; q and k of length one; q by `scale`.

    Convolution, SiLU, maps and division by the length are applied if the layer has them. Maps stand
    before the division by the length, so that keys still have length one. With the delta rule
    longer keys would make the state grow.
    """

    q_proj: Linear
    k_proj: Linear
    v_proj: Linear
    conv1d: CausalConv | None
    """Of the concatenated channels of q, k and v."""
    maps: KeyMaps | None
    """The last arrays of a layer, so that all others keep their places when maps are added."""
    key_heads: int = eqx.field(static=True)
    heads: int = eqx.field(static=True)
    feature: Feature = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    """Factor of the queries: K^-1/2, with the number K of keys at the layer's creation."""

    def __check_init__(self):
        if self.heads % self.key_heads:
            raise ValueError(f"`key_heads` must divide heads={self.heads}, got {self.key_heads}")

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        values: int,
        *,
        heads: int,
        key_heads: int,
        feature: Feature,
        d_conv: int | None,
        conv_bias: bool,
        maps: bool,
        key: PRNGKeyArray,
    ) -> "QueryKeyValue":
        """Projections without a bias and, if requested, identity maps."""
        q_key, k_key, v_key, conv_key = jax.random.split(key, 4)
        keys, channels = key_heads * d_state, heads * values
        conv = None
        if d_conv is not None:
            conv = CausalConv.init(2 * keys + channels, d_conv, bias=conv_bias, key=conv_key)
        made = cls(
            q_proj=Linear.init(d_model, keys, use_bias=False, key=q_key),
            k_proj=Linear.init(d_model, keys, use_bias=False, key=k_key),
            v_proj=Linear.init(d_model, channels, use_bias=False, key=v_key),
            conv1d=conv,
            maps=None,
            key_heads=key_heads,
            heads=heads,
            feature=feature,
            scale=d_state**-0.5,
        )
        return made.with_maps() if maps else made

    @property
    def keys(self) -> int:
        """Keys of a head before the maps."""
        return self.k_proj.weight.shape[0] // self.key_heads

    @property
    def d_state(self) -> int:
        """Keys of a head after the maps."""
        return self.keys if self.maps is None else self.maps.k.shape[2]

    @property
    def mixes(self) -> bool:
        """Whether any basis can be written into the rows that make q and k, up to their lengths."""
        bare = self.conv1d is None and self.feature == "identity"
        return self.maps is not None or bare

    @checked
    def with_maps(self) -> "QueryKeyValue":
        """With identity maps; itself if it has maps already."""
        if self.maps is not None:
            return self
        identity = jnp.eye(self.keys, dtype=self.k_proj.weight.dtype)
        each = jnp.broadcast_to(identity, (self.key_heads, self.keys, self.keys))
        return replace(self, maps=KeyMaps(each, jnp.array(each)))

    @checked
    def init_state(self) -> Float[Array, "taps convolved"] | None:
        """The window before the first sample."""
        return None if self.conv1d is None else self.conv1d.init_state()

    @checked
    def run(
        self,
        window: Float[InputArray, "taps convolved"] | None,
        u: Float[InputArray, "length d_model"],
        length: Count | None = None,
    ) -> tuple[Float[Array, "taps convolved"] | None, Triple]:
        """The window after the first `length` samples (all if not given), and q, k, v."""
        x = self._projected(u)
        if self.conv1d is not None:
            assert window is not None
            window, x = self.conv1d.run(window, x, length)
        return window, self._made(x)

    @checked
    def step(
        self,
        window: Float[InputArray, "taps convolved"] | None,
        u_t: Float[InputArray, " d_model"],
    ) -> tuple[Float[Array, "taps convolved"] | None, Triple]:
        """One sample of `run`."""
        x = self._projected(u_t)
        if self.conv1d is not None:
            assert window is not None
            window, x = self.conv1d.step(window, x)
        return window, self._made(x)

    @checked
    def mapped(self, q: Callable[..., Any], k: Callable[..., Any]) -> "QueryKeyValue":
        """With `q` and `k` applied to all rows that make queries and keys of each head."""
        if self.maps is not None:
            new = [
                jnp.swapaxes(jnp.asarray(change(jnp.swapaxes(old, 1, 2))), 1, 2)
                for change, old in ((q, self.maps.q), (k, self.maps.k))
            ]
            return replace(self, maps=KeyMaps(*new))

        def rows(change: Callable[..., Any], x: Array) -> Array:
            new = change(x.reshape(self.key_heads, self.keys, *x.shape[1:]))
            return new.reshape(-1, *new.shape[2:])

        def convolved(x: Array) -> Array:
            n = self.key_heads * self.keys
            return joined([rows(q, x[:n]), rows(k, x[n : 2 * n]), x[2 * n :]])

        conv = self.conv1d
        if conv is not None:
            bias = None if conv.bias is None else convolved(conv.bias)
            conv = CausalConv(convolved(conv.weight), bias)
        return replace(
            self,
            q_proj=Linear(jnp.asarray(rows(q, self.q_proj.weight))),
            k_proj=Linear(jnp.asarray(rows(k, self.k_proj.weight))),
            conv1d=conv,
        )

    def _projected(self, u: Float[Array, "*lead d_model"]) -> Float[Array, "*lead convolved"]:
        """The channels of q, k and v, one after the other."""
        maps = (self.q_proj, self.k_proj, self.v_proj)
        weights = [each.weight for each in maps]
        if any(isinstance(weight, AbstractMatrix) for weight in weights):
            return jnp.concatenate([each(u) for each in maps], axis=-1)
        return product(jnp.concatenate(weights), u)

    def _made(self, x: Float[Array, "*lead convolved"]) -> Triple:
        """q, k and v from their channels after the convolution."""
        if self.feature != "identity":
            x = jax.nn.silu(x)
        n = self.key_heads * self.keys
        q, k, v = jnp.split(x, (n, 2 * n), axis=-1)
        q, k = (a.reshape(*a.shape[:-1], self.key_heads, self.keys) for a in (q, k))
        if self.maps is not None:
            q, k = _mapped(self.maps.q, q), _mapped(self.maps.k, k)
        if self.feature == "unit":
            q, k = _unit(q), _unit(k)
        values = v.shape[-1] // self.heads
        return q * self.scale, k, v.reshape(*v.shape[:-1], self.heads, values)


def _mapped(
    maps: Float[Array, "key_heads keys d_state"], x: Float[Array, "*lead key_heads keys"]
) -> Float[Array, "*lead key_heads d_state"]:
    """x M of each head: one product for each, since XLA transposes what it multiplies head by
    head."""
    each = [product(M.T, x[..., head, :]) for head, M in enumerate(maps)]
    return jnp.stack(each, axis=-2)


def _unit(x: Array) -> Array:
    wide = jnp.asarray(x, jnp.result_type(x, jnp.float32))
    square = jnp.sum(wide**2, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(square + UNIT_EPSILON)).astype(x.dtype)
