"""Sequence models around the layers: encoder, residual blocks, pooling, head."""

import abc
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .bidirectional import Bidirectional
from .layer import AbstractSSM

BATCH_AXIS = "batch"
"""The axis name of `jax.vmap` over a batch: BatchNorm takes its mean over it."""


class AbstractNorm(eqx.Module):
    """Normalisation of a sequence, channel by channel or sample by sample."""

    @abc.abstractmethod
    def __call__(
        self, x: Float[Array, "L H"], state: eqx.nn.State
    ) -> tuple[Float[Array, "L H"], eqx.nn.State]:
        """The normalised sequence and the next state."""


class BatchNorm(AbstractNorm):
    """Each channel by its mean and variance over batch and length, running ones at inference."""

    norm: eqx.nn.BatchNorm

    def __init__(self, d_model: int):
        self.norm = eqx.nn.BatchNorm(d_model, BATCH_AXIS, mode="batch", momentum=0.9)

    def __call__(
        self, x: Float[Array, "L H"], state: eqx.nn.State
    ) -> tuple[Float[Array, "L H"], eqx.nn.State]:
        y, state = self.norm(x.T, state)
        return y.T, state


class LayerNorm(AbstractNorm):
    """Each sample by the mean and variance of its channels."""

    norm: eqx.nn.LayerNorm

    def __init__(self, d_model: int):
        self.norm = eqx.nn.LayerNorm(d_model)

    def __call__(
        self, x: Float[Array, "L H"], state: eqx.nn.State
    ) -> tuple[Float[Array, "L H"], eqx.nn.State]:
        return jax.vmap(self.norm)(x), state


NORMS: dict[str, Callable[[int], AbstractNorm]] = {"batch": BatchNorm, "layer": LayerNorm}


class GLU(eqx.Module):
    """Gated linear unit, W x * sigmoid(V x) (Dauphin et al. 2017)."""

    linear: eqx.nn.Linear
    gate: eqx.nn.Linear

    def __init__(self, d_model: int, *, key: PRNGKeyArray):
        linear_key, gate_key = jax.random.split(key)
        self.linear = eqx.nn.Linear(d_model, d_model, key=linear_key)
        self.gate = eqx.nn.Linear(d_model, d_model, key=gate_key)

    def __call__(self, x: Float[Array, "L H"]) -> Float[Array, "L H"]:
        return jax.vmap(self.linear)(x) * jax.nn.sigmoid(jax.vmap(self.gate)(x))


class Block(eqx.Module):
    """x + dropout(GLU(dropout(GELU(ssm(norm(x)))))), the paper's residual block."""

    norm: AbstractNorm
    ssm: AbstractSSM | Bidirectional
    glu: GLU
    dropout: eqx.nn.Dropout

    def __call__(
        self, x: Float[Array, "L H"], state: eqx.nn.State, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "L H"], eqx.nn.State]:
        inner_key, outer_key = (None, None) if key is None else jax.random.split(key)
        y, state = self.norm(x, state)
        y = self.dropout(jax.nn.gelu(self.ssm(y)), key=inner_key)
        y = self.dropout(self.glu(y), key=outer_key)
        return x + y, state


class LinearEncoder(eqx.Module):
    """Real inputs, sample by sample: Float[L, c] -> Float[L, H]."""

    linear: eqx.nn.Linear

    def __init__(self, channels: int, d_model: int, *, key: PRNGKeyArray):
        self.linear = eqx.nn.Linear(channels, d_model, key=key)

    def __call__(self, x: Float[Array, "L c"]) -> Float[Array, "L H"]:
        return jax.vmap(self.linear)(x)


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
    blocks: tuple[Block, ...]
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
    norm: Literal["batch", "layer"] = "batch",
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
            blocks=tuple(_block(k) for k in block_keys),
            head=eqx.nn.Linear(d_model, classes, key=head_key),
        )

    def _block(block_key: PRNGKeyArray) -> Block:
        forward_key, backward_key, glu_key = jax.random.split(block_key, 3)
        ssm = make_ssm(forward_key)
        if bidirectional:
            ssm = Bidirectional(ssm, make_ssm(backward_key))
        return Block(NORMS[norm](d_model), ssm, GLU(d_model, key=glu_key), eqx.nn.Dropout(dropout))

    return eqx.nn.make_with_state(build)()
