"""The classifier around the layers: encoder, residual blocks, pooling, head."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .block import Block, MixerBlock, residual_block
from .layer import AbstractSSM
from .linear import affine
from .norm import NormName


class LinearEncoder(eqx.Module):
    """Real inputs, sample by sample: Float[L, c] -> Float[L, H]."""

    linear: eqx.nn.Linear

    def __init__(self, channels: int, d_model: int, *, key: PRNGKeyArray):
        self.linear = eqx.nn.Linear(channels, d_model, key=key)

    def __call__(self, x: Float[Array, "L c"]) -> Float[Array, "L H"]:
        return affine(self.linear, x)


class EmbeddingEncoder(eqx.Module):
    """Tokens 0..vocabulary-1: Int[L] -> Float[L, H]."""

    embedding: eqx.nn.Embedding

    def __init__(self, vocabulary: int, d_model: int, *, key: PRNGKeyArray):
        self.embedding = eqx.nn.Embedding(vocabulary, d_model, key=key)

    def __call__(self, x: Int[Array, " L"]) -> Float[Array, "L H"]:
        return jax.vmap(self.embedding)(x)


class Classifier(eqx.Module):
    """A sequence in, logits of its classes out: encoder, blocks, mean over the length, linear head.

    One sequence per call; for a batch `jax.vmap(model, in_axes=(0, None, 0), out_axes=(0, None),
    axis_name=BATCH_AXIS)(x, state, key=keys)`. Use `eqx.nn.inference_mode` for evaluation.
    """

    encoder: LinearEncoder | EmbeddingEncoder
    blocks: tuple[Block | MixerBlock, ...]
    head: eqx.nn.Linear

    def __call__(
        self,
        x: Float[Array, "L c"] | Int[Array, " L"],
        state: eqx.nn.State,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " classes"], eqx.nn.State]:
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        h = self.encoder(x)
        for block, block_key in zip(self.blocks, keys, strict=True):
            h, state = block(h, state, key=block_key)
        return self.head(jnp.mean(h, axis=0)), state


def classifier(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    *,
    input_kind: Literal["real", "tokens"],
    input_size: int,
    classes: int,
    d_model: int,
    blocks: int,
    norm: NormName = "batch",
    dropout: float = 0.0,
    bidirectional: bool = False,
    key: PRNGKeyArray,
) -> tuple[Classifier, eqx.nn.State]:
    """A classifier of `blocks` residual blocks of width `d_model`, and its BatchNorm state.

    `make_ssm(key)` makes a layer of that width; `input_size` is the number of real channels, or the
    vocabulary.
    """
    encoder_key, head_key, *block_keys = jax.random.split(key, 2 + blocks)
    encoders = {"real": LinearEncoder, "tokens": EmbeddingEncoder}

    def build() -> Classifier:
        return Classifier(
            encoder=encoders[input_kind](input_size, d_model, key=encoder_key),
            blocks=tuple(
                residual_block(
                    make_ssm,
                    d_model=d_model,
                    norm=norm,
                    dropout=dropout,
                    bidirectional=bidirectional,
                    key=k,
                )
                for k in block_keys
            ),
            head=eqx.nn.Linear(d_model, classes, key=head_key),
        )

    return eqx.nn.make_with_state(build)()
