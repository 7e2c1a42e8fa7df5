"""Retention (Sun et al. 2023, arXiv 2307.08621), without the rotation of queries and keys."""

from dataclasses import dataclass, replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..typing import InputArray, checked
from .affine import Linear
from .attention_family import AbstractLinearAttention, Basis, Mapping
from .attention_parts import check_sizes, common_parts
from .query_key_value import QueryKeyValue


@dataclass(frozen=True)
class RetNetConfig:
    """Retention, a fixed decay for each head (Sun et al. 2023)."""

    states_per_channel: ClassVar[bool] = True

    d_state: int = 32
    """Keys K of each head at the start."""
    heads: int = 2
    """Heads, each with a state of K keys times V values; must divide expand * d_model."""
    expand: int = 2
    """Values of all heads, as a multiple of d_model."""
    d_conv: int | None = None
    """Samples under the convolution of queries, keys and values; None for no convolution."""
    conv_bias: bool = False
    """Bias of the convolution."""
    maps: bool = False
    """Whether trainable maps follow queries and keys, K to K at the start. Cuts are written into
    them."""

    def __post_init__(self):
        check_sizes(self)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "RetNet":
        return RetNet.init(d_model, key=key, **vars(self))


class RetNet(AbstractLinearAttention):
    """S_t = a_h S_{t-1} + k_t v_t^T with a_h = 1 - 2^(-5-h) of head h = 0, 1, ... (equation 8).

    q, k, v are projections of u; o_proj(norm(S_t^T q_t) * silu(g_proj(u_t))) comes out, the norm by
    the root mean square of each head. With a convolution, SiLU follows it. Without one, a cut is
    folded into the projections. The rotation of queries and keys by position, which would make the
    decays complex, is left out, as later linear attention does.
    """

    dynamics: ClassVar[tuple[str, ...]] = ()
    basis: ClassVar[Basis] = "any"

    g_proj: Linear | None
    o_norm: Float[Array, " values"]
    o_proj: Linear
    qkv: QueryKeyValue
    eps: float = eqx.field(static=True)

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        heads: int = RetNetConfig.heads,
        expand: int = RetNetConfig.expand,
        d_conv: int | None = RetNetConfig.d_conv,
        conv_bias: bool = RetNetConfig.conv_bias,
        maps: bool = RetNetConfig.maps,
    ) -> "RetNet":
        """`heads` heads of `d_state` keys and expand * d_model / heads values."""
        qkv_key, gate_key, out_key = jax.random.split(key, 3)
        parts = common_parts(
            d_model,
            d_state,
            (qkv_key, gate_key, out_key),
            heads=heads,
            expand=expand,
            d_conv=d_conv,
            conv_bias=conv_bias,
            maps=maps,
        )
        return cls(**parts)

    @checked
    def log_decay(
        self, u: Float[InputArray, "*lead {self.d_model}"]
    ) -> Float[Array, "*lead heads 1"]:
        dtype = jnp.result_type(u, jnp.float32)  # half precision has no digits for them
        log_decay = np.log1p(-(2.0 ** -(5.0 + np.arange(self.heads))))[:, None]
        return jnp.broadcast_to(jnp.asarray(log_decay, dtype), (*u.shape[:-1], self.heads, 1))

    @checked
    def beta(self, u: Float[InputArray, "*lead {self.d_model}"]) -> None:
        return None

    @checked
    def map_keys(self, q: Mapping, k: Mapping, decay: Mapping) -> "RetNet":
        return replace(self, qkv=self.qkv.mapped(q, k))
