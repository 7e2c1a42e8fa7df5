"""Residual blocks around the layers."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..derivative import both_ways
from ..layers.base import AbstractSSM
from ..typing import Count, InputArray, checked
from .bidirectional import Bidirectional
from .norm import NORMS, AbstractNorm, FixedNorm, NormName, SampleNorm
from .pointwise import GLU, Dropout, gelu


def _summed_once_backward(_, dx):
    return (dx / jnp.minimum(1, 1 + jnp.abs(dx)),)


_summed_once = both_ways(
    lambda x: (x, None), lambda _, tangents: tangents[0], _summed_once_backward
)
"""x. Its cotangent, a sum that grows from block to block, is worked out here and kept.

XLA's fusion copies cheap sums into all that use them, so that each block would add up again the
cotangents of all blocks after it. It does not copy divisions, here by ones that it can't see: one
for each entry, as it makes a product, which it copies, of a division by a single number.
"""


class AbstractBlock(eqx.Module):
    """x + after(ssm(norm(x))), sequence by sequence or, where the parts allow it, streamed."""

    norm: eqx.AbstractVar[AbstractNorm]
    ssm: eqx.AbstractVar[AbstractSSM | Bidirectional]

    @abc.abstractmethod
    def after(
        self, y: Float[InputArray, "length d_model"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length d_model"]:
        """What is done with the layer's output, sample by sample, before it is added."""

    @abc.abstractmethod
    def end(self, x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        """What is made of the sum, sample by sample, at the end of the block."""

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length d_model"],
        state: eqx.nn.State,
        *,
        length: Count | None = None,
        dt: Float[InputArray, " length"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
        """The next residual stream and the next state.

        Samples from `length` on are padding: they change nothing before them, and mean nothing.
        `dt` are the intervals before each sample, for layers that take them.
        """
        x = _summed_once(x)
        y, state = self.norm(x, state, length)
        given: dict[str, Any] = {} if dt is None else {"dt": dt}
        if length is not None and isinstance(self.ssm, Bidirectional):
            given["length"] = length
        return self.end(x + self.after(self.ssm(y, **given), key=key)), state

    @checked
    def streamed(self) -> tuple[eqx.nn.LayerNorm | eqx.nn.RMSNorm | FixedNorm, AbstractSSM]:
        """The norm of a sample and the layer; a ValueError if this block cannot be streamed."""
        if not isinstance(self.norm, SampleNorm):
            raise ValueError(
                "`norm` must be 'layer' or 'rms' where sequences are streamed (a mean over the "
                "batch and its length sees the future; a trained one is fixed by "
                f"`zoo.fixed_norms`), got {type(self.norm).__name__}"
            )
        if isinstance(self.ssm, Bidirectional):
            raise ValueError("`ssm` must be causal where sequences are streamed, got Bidirectional")
        return self.norm.norm, self.ssm

    @checked
    def run(
        self, carry: Any, x: Float[InputArray, "length d_model"], length: Count | None = None
    ) -> tuple[Any, Float[Array, "length d_model"]]:
        """A piece of a sequence, as `AbstractSSM.run`, without dropout."""
        norm, ssm = self.streamed()
        carry, y = ssm.run(carry, jax.vmap(norm)(x), length)
        return carry, self.end(x + eqx.nn.inference_mode(self).after(y))

    @checked
    def step(
        self, carry: Any, x_t: Float[InputArray, " d_model"]
    ) -> tuple[Any, Float[Array, " d_model"]]:
        """One sample, as `AbstractSSM.step`, without dropout."""
        norm, ssm = self.streamed()
        carry, y_t = ssm.step(carry, norm(x_t))
        y_t = eqx.nn.inference_mode(self).after(y_t[None])
        return carry, self.end(x_t[None] + y_t)[0]


class Block(AbstractBlock):
    """x + dropout(GLU(dropout(GELU(ssm(norm(x)))))), the paper's residual block."""

    norm: AbstractNorm
    ssm: AbstractSSM | Bidirectional
    glu: GLU
    dropout: Dropout

    @checked
    def after(
        self, y: Float[InputArray, "length d_model"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length d_model"]:
        y = self.dropout(gelu(y), key=key, draw=0)
        return self.dropout(self.glu(y), key=key, draw=1)

    @checked
    def end(self, x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        return x


class MixerBlock(AbstractBlock):
    """x + dropout(ssm(norm(x))), for layers that gate and mix channels themselves (Mamba)."""

    norm: AbstractNorm
    ssm: AbstractSSM | Bidirectional
    dropout: Dropout

    @checked
    def after(
        self, y: Float[InputArray, "length d_model"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length d_model"]:
        return self.dropout(y, key=key)

    @checked
    def end(self, x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        return x


@checked
def run_blocks(
    blocks: Sequence[AbstractBlock],
    x: Float[InputArray, "length d_model"],
    state: eqx.nn.State,
    *,
    length: Count | None = None,
    dt: Float[InputArray, " length"] | None = None,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
    """The residual stream after all blocks, and the next state; the rest as for a block."""
    keys = [None] * len(blocks) if key is None else jax.random.split(key, len(blocks))
    for block, block_key in zip(blocks, keys, strict=True):
        x, state = block(x, state, length=length, dt=dt, key=block_key)
    return x, state


@checked
def blocks_init_state(blocks: Sequence[AbstractBlock]) -> tuple[Any, ...]:
    """Each layer's zero state; a ValueError if a block cannot be streamed."""
    return tuple(block.streamed()[1].init_state() for block in blocks)


@checked
def step_blocks(
    blocks: Sequence[AbstractBlock], carry: tuple[Any, ...], x_t: Float[InputArray, " d_model"]
) -> tuple[tuple[Any, ...], Float[Array, " d_model"]]:
    """One sample through all blocks: the next carry, and the residual stream after the last one."""
    after = []
    for block, before in zip(blocks, carry, strict=True):
        state, x_t = block.step(before, x_t)
        after.append(state)
    return tuple(after), jnp.asarray(x_t)


@checked
def residual_block(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    *,
    d_model: int,
    norm: NormName,
    dropout: float,
    bidirectional: bool,
    key: PRNGKeyArray,
) -> Block | MixerBlock:
    """The block that suits the layer: a `MixerBlock` for a mixer, otherwise a `Block`."""
    if norm not in NORMS:
        raise ValueError(f"`norm` must be one of {', '.join(NORMS)}, got {norm!r}")
    forward_key, backward_key, glu_key = jax.random.split(key, 3)
    forward = make_ssm(forward_key)
    ssm = Bidirectional(forward, make_ssm(backward_key)) if bidirectional else forward
    if forward.is_mixer:
        return MixerBlock(NORMS[norm](d_model), ssm, Dropout(dropout))
    glu = GLU(d_model, key=glu_key)
    return Block(NORMS[norm](d_model), ssm, glu, Dropout(dropout))


@checked
def residual_blocks(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM], keys: Sequence[PRNGKeyArray], **settings: Any
) -> tuple[Block | MixerBlock, ...]:
    """A `residual_block` with these settings for each key."""
    return tuple(residual_block(make_ssm, key=key, **settings) for key in keys)
