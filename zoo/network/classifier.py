"""The classifier around the layers: encoder, residual blocks, pooling, head."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..layers.affine import affine
from ..layers.base import AbstractSSM
from ..masks import within
from ..typing import Count, InputArray, checked
from .block import (
    AbstractBlock,
    BlockSettings,
    blocks_init_state,
    residual_blocks,
    step_blocks,
)
from .deep import run_blocks
from .intervals import check_knows_time


class LinearEncoder(eqx.Module):
    """Real inputs, sample by sample: Float[L, c] -> Float[L, H]."""

    linear: eqx.nn.Linear

    @checked
    def __init__(self, channels: int, d_model: int, *, key: PRNGKeyArray):
        self.linear = eqx.nn.Linear(channels, d_model, key=key)

    @checked
    def __call__(
        self, x: Float[InputArray, "length {self.linear.in_features}"]
    ) -> Float[Array, "length d_model"]:
        return affine(self.linear, x)


class EmbeddingEncoder(eqx.Module):
    """Tokens 0..vocabulary-1: Int[L] -> Float[L, H]."""

    embedding: eqx.nn.Embedding

    @checked
    def __init__(self, vocabulary: int, d_model: int, *, key: PRNGKeyArray):
        self.embedding = eqx.nn.Embedding(vocabulary, d_model, key=key)

    @checked
    def __call__(self, x: Int[InputArray, " length"]) -> Float[Array, "length d_model"]:
        return jax.vmap(self.embedding)(x)


Encoder = LinearEncoder | EmbeddingEncoder
ENCODERS: dict[str, Callable[..., Encoder]] = {"real": LinearEncoder, "tokens": EmbeddingEncoder}
"""Encoders by the kind of input: `encoder(input_size, d_model, key=key)`."""


@checked
def mean_pool(
    h: Float[InputArray, "length d_model"], length: Count | None = None
) -> Float[Array, " d_model"]:
    """The mean over the samples that are not padding."""
    if length is None:
        return jnp.mean(h, axis=0)
    return jnp.sum(h, axis=0, where=within(length, h.shape[0])[:, None]) / length


class PooledState(NamedTuple):
    """What a classifier carries from one sample to the next."""

    layers: tuple[Any, ...]
    """Each layer's state."""
    total: Float[Array, " d_model"]
    """The sum of the residual stream over the samples so far."""
    samples: Float[Array, ""]
    """The number of samples so far."""


@checked
def last_sample(
    h: Float[InputArray, "length d_model"], length: Count | None = None
) -> Float[Array, " d_model"]:
    """The last sample that is not padding."""
    return h[-1] if length is None else h[length - 1]


PoolName = Literal["mean", "last"]

POOLS: dict[PoolName, Callable[..., Float[Array, " d_model"]]] = {
    "mean": mean_pool,
    "last": last_sample,
}
"""Pooling functions by name: `pool(h, length)`."""


class Classifier(eqx.Module):
    """A sequence in, logits of its classes out: encoder, blocks, pooling, linear head.

    One sequence per call; for a batch `jax.vmap(model, in_axes=(0, None, 0), out_axes=(0, None),
    axis_name=BATCH_AXIS)(x, state, key=keys)`. Use `eqx.nn.inference_mode` for evaluation. Of a
    padded sequence, `length` is the number of samples: the logits are those of the sequence alone.
    `step` streams without dropout, with a running mean. Norms must then act on one sample at a time
    (`zoo.fixed_norms`). `dt` are the intervals before each sample, as for `zoo.Regressor`.
    """

    encoder: Encoder
    blocks: tuple[AbstractBlock, ...]
    head: eqx.nn.Linear
    pooling: PoolName = eqx.field(static=True, default="mean")

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length channels"] | Int[InputArray, " length"],
        state: eqx.nn.State,
        *,
        length: Count | None = None,
        dt: Float[InputArray, " length"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " classes"], eqx.nn.State]:
        h, state = run_blocks(self.blocks, self.encoder(x), state, length=length, dt=dt, key=key)
        return self.head(POOLS[self.pooling](h, length)), state

    @checked
    def init_state(self) -> PooledState:
        """The carry before the first sample. A ValueError if the model cannot be streamed."""
        width = self.head.in_features
        dtype = self.head.weight.dtype
        total = jnp.zeros(width, dtype)
        return PooledState(blocks_init_state(self.blocks), total, jnp.zeros((), dtype))

    @checked
    def step(
        self,
        carry: PooledState,
        x_t: Float[InputArray, " channels"] | Int[InputArray, ""],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[PooledState, Float[Array, " classes"]]:
        """One sample: the next carry, and the logits of the sequence so far.

        `dt` is the interval before the sample, as in the call.
        """
        h = self.encoder(x_t[None])[0]
        layers, h = step_blocks(self.blocks, carry.layers, h, dt)
        carry = PooledState(layers, carry.total + h, carry.samples + 1)
        pooled = h if self.pooling == "last" else carry.total / carry.samples
        return carry, self.head(pooled)


@checked
def classifier(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    *,
    input_kind: Literal["real", "tokens"],
    input_size: int,
    classes: int,
    d_model: int,
    blocks: int,
    intervals: bool = False,
    pooling: PoolName = "mean",
    key: PRNGKeyArray,
    **block: Any,
) -> tuple[Classifier, eqx.nn.State]:
    """A classifier of `blocks` residual blocks of width `d_model`, and its BatchNorm state.

    `make_ssm(key)` makes a layer of that width; `input_size` is the number of real channels, or the
    vocabulary; `intervals` says whether the model will be given `dt`. `pooling` is "mean" or
    "last", both of the samples that are not padding. `block` are fields of `BlockSettings`: `norm`,
    `dropout`, `bidirectional` and others.
    """
    check_knows_time(make_ssm, intervals)
    settings = BlockSettings(**block)
    encoder_key, head_key, *block_keys = jax.random.split(key, 2 + blocks)

    def build() -> Classifier:
        return Classifier(
            encoder=ENCODERS[input_kind](input_size, d_model, key=encoder_key),
            blocks=residual_blocks(make_ssm, settings, d_model=d_model, keys=block_keys),
            head=eqx.nn.Linear(d_model, classes, key=head_key),
            pooling=pooling,
        )

    return eqx.nn.make_with_state(build)()
