"""Gated linear attention (Yang et al., ICML 2024, arXiv 2312.06635)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..typing import InputArray, checked
from .affine import Linear
from .attention_family import AbstractLinearAttention, Basis, Mapping
from .attention_parts import check_sizes, common_parts
from .checks import check_positive
from .query_key_value import QueryKeyValue


@dataclass(frozen=True)
class GLAConfig:
    """Gated linear attention: each key has a decay that depends on the data (Yang et al. 2024)."""

    states_per_channel: ClassVar[bool] = True

    d_state: int = 32
    """Keys K of each head at the start."""
    heads: int = 2
    """Heads, each with a state of K keys times V values; must divide expand * d_model."""
    expand: int = 1
    """Values of all heads, as a multiple of d_model."""
    d_conv: int | None = None
    """Samples under the convolution of queries, keys and values; None for no convolution."""
    conv_bias: bool = False
    """Bias of the convolution."""
    gate_rank: int = 16
    """Rank of the map to the decays."""
    gate_normalizer: float = 16.0
    """The logarithms of the decays are divided by this: the larger, the longer the memory."""

    def __post_init__(self):
        check_sizes(self, "gate_rank")
        if self.gate_normalizer <= 0:
            raise ValueError(f"`gate_normalizer` must be more than 0, got {self.gate_normalizer}")

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "GLA":
        return GLA.init(d_model, key=key, **vars(self))


class GLA(AbstractLinearAttention):
    """S_t = diag(a_t) S_{t-1} + k_t v_t^T, a_t = sigmoid(gk_up(gk_down(u_t)))^(1/normalizer).

    q, k, v are projections of u; o_proj(norm(S_t^T q_t) * silu(g_proj(u_t))) comes out, the norm by
    the root mean square of each head (section 4.4 of the paper). With a convolution, SiLU follows
    it. Each key decays by itself, so that a cut keeps some of the keys.
    """

    dynamics: ClassVar[tuple[str, ...]] = ("gk_down", "gk_up")
    basis: ClassVar[Basis] = "selection"

    gk_down: Linear
    gk_up: Linear
    g_proj: Linear | None
    o_norm: Float[Array, " values"]
    o_proj: Linear
    qkv: QueryKeyValue
    gate_normalizer: float = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __check_init__(self):
        if self.qkv.maps is not None:
            raise ValueError("`qkv` must have no maps, since each key has a decay, got some")

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        heads: int = GLAConfig.heads,
        expand: int = GLAConfig.expand,
        d_conv: int | None = GLAConfig.d_conv,
        conv_bias: bool = GLAConfig.conv_bias,
        gate_rank: int = GLAConfig.gate_rank,
        gate_normalizer: float = GLAConfig.gate_normalizer,
    ) -> "GLA":
        """`heads` heads of `d_state` keys and expand * d_model / heads values."""
        if not 0 < gate_normalizer < math.inf:
            raise ValueError(f"`gate_normalizer` must be more than 0, got {gate_normalizer}")
        check_positive("gate_rank", gate_rank)
        qkv_key, down_key, up_key, gate_key, out_key = jax.random.split(key, 5)
        parts = common_parts(
            d_model,
            d_state,
            (qkv_key, gate_key, out_key),
            heads=heads,
            expand=expand,
            d_conv=d_conv,
            conv_bias=conv_bias,
        )
        return cls(
            gk_down=Linear.init(d_model, gate_rank, use_bias=False, key=down_key),
            gk_up=Linear.init(gate_rank, heads * d_state, key=up_key),
            gate_normalizer=gate_normalizer,
            **parts,
        )

    @checked
    def log_decay(
        self, u: Float[InputArray, "*lead {self.d_model}"]
    ) -> Float[Array, "*lead heads {self.d_state}"]:
        logits = self.gk_up(self.gk_down(u)).reshape(*u.shape[:-1], self.heads, self.d_state)
        return jax.nn.log_sigmoid(logits) / self.gate_normalizer

    @checked
    def beta(self, u: Float[InputArray, "*lead {self.d_model}"]) -> None:
        return None

    @checked
    def map_keys(self, q: Mapping, k: Mapping, decay: Mapping) -> "GLA":
        def rows(x: Array) -> Array:
            new = jnp.asarray(decay(x.reshape(self.heads, self.d_state, *x.shape[1:])))
            return new.reshape(-1, *new.shape[2:])

        bias = self.gk_up.bias
        gk_up = Linear(rows(self.gk_up.weight), None if bias is None else rows(bias))
        return replace(self, qkv=self.qkv.mapped(q, k), gk_up=gk_up)
