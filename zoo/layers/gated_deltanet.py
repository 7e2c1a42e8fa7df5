"""Gated DeltaNet (Yang et al., ICLR 2025, arXiv 2412.06464): the delta rule with a decay."""

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
from .checks import check_divides, check_steps
from .initializers import inverse_softplus, log_uniform
from .query_key_value import QueryKeyValue


@dataclass(frozen=True)
class GatedDeltaNetConfig:
    """Gated DeltaNet: the delta rule with a decay that depends on the data (Yang et al. 2025)."""

    states_per_channel: ClassVar[bool] = True

    d_state: int = 32
    """Keys K of each head at the start."""
    heads: int = 2
    """Heads, each with a state of K keys times V values; must divide expand * d_model."""
    key_heads: int | None = None
    """Heads of queries and keys, each shared by neighbouring heads; None for one for each head."""
    expand: int = 2
    """Values of all heads, as a multiple of d_model."""
    d_conv: int | None = 4
    """Samples under the convolution of queries, keys and values; None for no convolution."""
    conv_bias: bool = False
    """Bias of the convolution."""
    gated: bool = True
    """Whether a gate follows the heads."""
    negative: bool = False
    """Whether b goes up to 2, so that eigenvalues go down to -1 (Grazzi et al., arXiv
    2411.12537)."""
    dt_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    dt_max: float = 1e-1
    """Largest step size at the start [samples]."""
    maps: bool = False
    """Whether trainable maps follow queries and keys, K to K at the start. Cuts are written into
    them."""

    def __post_init__(self):
        check_sizes(self)
        if self.key_heads is not None:
            check_divides("key_heads", self.key_heads, "heads", self.heads)
        check_steps("dt", self.dt_min, self.dt_max)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> "GatedDeltaNet":
        return GatedDeltaNet.init(d_model, key=key, **vars(self))


class GatedDeltaNet(AbstractLinearAttention):
    """S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T with b_t = sigmoid(b_proj(u_t)) and

        a_t = exp(-exp(A_log) softplus(a_proj(u_t) + dt_bias)).

    q, k, v are the SiLU of the convolution of projections of u, q and k of length one;
    o_proj(norm(S_t^T q_t) * silu(g_proj(u_t))) comes out, the norm by the root mean square of each
    head, without the gate if the layer has none (section 3.4 of the paper).
    """

    dynamics: ClassVar[tuple[str, ...]] = ("a_proj", "b_proj", "A_log", "dt_bias")
    basis: ClassVar[Basis] = "orthonormal"

    a_proj: Linear
    b_proj: Linear
    A_log: Float[Array, " heads"]
    dt_bias: Float[Array, " heads"]
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
        heads: int = GatedDeltaNetConfig.heads,
        key_heads: int | None = GatedDeltaNetConfig.key_heads,
        expand: int = GatedDeltaNetConfig.expand,
        d_conv: int | None = GatedDeltaNetConfig.d_conv,
        conv_bias: bool = GatedDeltaNetConfig.conv_bias,
        gated: bool = GatedDeltaNetConfig.gated,
        negative: bool = GatedDeltaNetConfig.negative,
        dt_min: float = GatedDeltaNetConfig.dt_min,
        dt_max: float = GatedDeltaNetConfig.dt_max,
        maps: bool = GatedDeltaNetConfig.maps,
    ) -> "GatedDeltaNet":
        """`heads` heads of `d_state` keys and expand * d_model / heads values.

        exp(A_log) is uniform in [1, 16], the steps softplus(dt_bias) log-uniform in [dt_min,
        dt_max] samples.
        """
        check_steps("dt", dt_min, dt_max)
        qkv_key, a_key, b_key, A_key, step_key, gate_key, out_key = jax.random.split(key, 7)
        parts = common_parts(
            d_model,
            d_state,
            (qkv_key, gate_key, out_key),
            heads=heads,
            expand=expand,
            d_conv=d_conv,
            conv_bias=conv_bias,
            key_heads=key_heads,
            feature="unit",
            gated=gated,
            maps=maps,
        )
        return cls(
            a_proj=Linear.init(d_model, heads, use_bias=False, key=a_key),
            b_proj=Linear.init(d_model, heads, use_bias=False, key=b_key),
            A_log=jnp.log(jax.random.uniform(A_key, (heads,), minval=1.0, maxval=16.0)),
            dt_bias=inverse_softplus(jnp.exp(log_uniform(step_key, (heads,), dt_min, dt_max))),
            negative=negative,
            **parts,
        )

    @checked
    def log_decay(
        self, u: Float[InputArray, "*lead {self.d_model}"]
    ) -> Float[Array, "*lead heads 1"]:
        steps = jax.nn.softplus(self.a_proj(u) + self.dt_bias)
        return (-jnp.exp(self.A_log) * steps)[..., None]

    @checked
    def beta(self, u: Float[InputArray, "*lead {self.d_model}"]) -> Float[Array, "*lead heads"]:
        beta = jax.nn.sigmoid(self.b_proj(u))
        return 2 * beta if self.negative else beta

    @checked
    def map_keys(self, q: Mapping, k: Mapping, decay: Mapping) -> "GatedDeltaNet":
        return replace(self, qkv=self.qkv.mapped(q, k))
