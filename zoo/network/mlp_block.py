"""A block with a gated MLP after the mixer, as in Llama-like language models."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ..layers.affine import Linear
from ..layers.base import AbstractSSM
from ..layers.half import Precision
from ..typing import InputArray, checked
from .bidirectional import Bidirectional
from .block import SCAN_ABOVE, AbstractBlock
from .norm import AbstractNorm, SampleNorm
from .pointwise import Dropout


class SwiGLU(eqx.Module):
    """down_proj(silu(gate_proj(x)) * up_proj(x)) (Shazeer, arXiv 2002.05202)."""

    gate_proj: Linear
    up_proj: Linear
    down_proj: Linear

    @classmethod
    @checked
    def init(cls, d_model: int, channels: int, *, key: PRNGKeyArray) -> "SwiGLU":
        """With `channels` inside, and no biases."""
        gate_key, up_key, down_key = jax.random.split(key, 3)
        return cls(
            gate_proj=Linear.init(d_model, channels, use_bias=False, key=gate_key),
            up_proj=Linear.init(d_model, channels, use_bias=False, key=up_key),
            down_proj=Linear.init(channels, d_model, use_bias=False, key=down_key),
        )

    @checked
    def __call__(self, x: Float[InputArray, "*lead d_model"]) -> Float[Array, "*lead d_model"]:
        return self.down_proj(jax.nn.silu(self.gate_proj(x)) * self.up_proj(x))


class MLPBlock(AbstractBlock):
    """x + mlp(mlp_norm(x)) of x + dropout(ssm(norm(x)))."""

    norm: AbstractNorm
    ssm: AbstractSSM | Bidirectional
    dropout: Dropout
    mlp_norm: SampleNorm
    mlp: SwiGLU
    norm_first: bool = eqx.field(static=True, default=True)
    precision: Precision = eqx.field(static=True, default="float32")
    scan_above: int = eqx.field(static=True, default=SCAN_ABOVE)

    @checked
    def after(
        self, y: Float[InputArray, "length d_model"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length d_model"]:
        return self.dropout(y, key=key)

    @checked
    def end(self, x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        return x + self.mlp(jax.vmap(self.mlp_norm.norm)(x))
