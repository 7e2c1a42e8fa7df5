"""DeltaNet (Yang et al., NeurIPS 2024, arXiv 2406.06484): linear attention by the delta rule."""

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
from .query_key_value import QueryKeyValue


@dataclass(frozen=True)
class DeltaNetConfig:
    """DeltaNet: linear attention whose state is corrected by the delta rule (Yang et al. 2024)."""

    states_per_channel: ClassVar[bool] = True

    d_state: int = 32
    """Keys K of each head at the start."""
    heads: int = 2
    """Heads, each with a state of K keys times V values; must divide expand * d_model."""
    expand: int = 1
    """Values of all heads, as a multiple of d_model."""
    d_conv: int | None = 4
    """Samples under the convolution of queries, keys and values; None for no convolution."""
    conv_bias: bool = False
    """Bias of the convolution."""
    gated: bool = False
    """Whether a gate follows the heads."""
    negative: bool = False
    """Whether b goes up to 2, so that eigenvalues go down to -1 (Grazzi et al., arXiv
    2411.12537)."""
    maps: bool = False
    """Whether trainable maps follow queries and keys, K to K at the start. Cuts are written into
    them."""

    def __post_init__(self):
        check_sizes(self)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "DeltaNet":
        return DeltaNet.init(d_model, key=key, **vars(self))


class DeltaNet(AbstractLinearAttention):
    """S_t = (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T with b_t = sigmoid(b_proj(u_t)).

    q, k, v are the SiLU of the convolution of projections of u, q and k of length one;
    o_proj(norm(S_t^T q_t)) comes out, the norm by the root mean square of each head, with a gate
    behind it if the layer has one (section 3 and appendix of the paper).
    """

    dynamics: ClassVar[tuple[str, ...]] = ("b_proj",)
    basis: ClassVar[Basis] = "orthonormal"
    takes_intervals: ClassVar[bool] = False  # nothing decays with time

    b_proj: Linear
    g_proj: Linear | None
    o_norm: Float[Array, " values"]
    o_proj: Linear
    qkv: QueryKeyValue
    negative: bool = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    @classmethod
    @checked
    def init(
        cls,
        d_model: int,
        d_state: int,
        *,
        key: PRNGKeyArray,
        heads: int = DeltaNetConfig.heads,
        expand: int = DeltaNetConfig.expand,
        d_conv: int | None = DeltaNetConfig.d_conv,
        conv_bias: bool = DeltaNetConfig.conv_bias,
        gated: bool = DeltaNetConfig.gated,
        negative: bool = DeltaNetConfig.negative,
        maps: bool = DeltaNetConfig.maps,
    ) -> "DeltaNet":
        """`heads` heads of `d_state` keys and expand * d_model / heads values."""
        qkv_key, beta_key, gate_key, out_key = jax.random.split(key, 4)
        parts = common_parts(
            d_model,
            d_state,
            (qkv_key, gate_key, out_key),
            heads=heads,
            expand=expand,
            d_conv=d_conv,
            conv_bias=conv_bias,
            feature="unit",
            gated=gated,
            maps=maps,
        )
        return cls(
            b_proj=Linear.init(d_model, heads, use_bias=False, key=beta_key),
            negative=negative,
            **parts,
        )

    @checked
    def log_decay(
        self, u: Float[InputArray, "*lead {self.d_model}"]
    ) -> Float[Array, "*lead heads 1"]:
        return jnp.zeros((*u.shape[:-1], self.heads, 1), u.dtype)

    @checked
    def beta(self, u: Float[InputArray, "*lead {self.d_model}"]) -> Float[Array, "*lead heads"]:
        beta = jax.nn.sigmoid(self.b_proj(u))
        return 2 * beta if self.negative else beta

    @checked
    def map_keys(self, q: Mapping, k: Mapping, decay: Mapping) -> "DeltaNet":
        return replace(self, qkv=self.qkv.mapped(q, k))
