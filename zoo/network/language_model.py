"""The language model around any layer: logits of the next token."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..layers.affine import Linear, product
from ..layers.base import AbstractSSM
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
from .norm import NormName, SampleNorm, layer_norm, rms_norm

FINAL_NORMS: dict[str, Callable[..., SampleNorm]] = {"layer": layer_norm, "rms": rms_norm}


class LanguageModel(eqx.Module):
    """Tokens in, logits of the next token out at each place: embedding, blocks, norm, head.

    One sequence per call, like `zoo.Classifier`: for a batch `jax.vmap(model, in_axes=(0, None, 0),
    out_axes=(0, None), axis_name=BATCH_AXIS)(tokens, state, key=keys)`. The state is returned
    unchanged; `dt` are the intervals before each token. `run` and `step` stream: they carry the
    layers' states, without dropout, and give the same logits.
    """

    embedding: eqx.nn.Embedding
    blocks: tuple[AbstractBlock, ...]
    norm: SampleNorm
    head: Linear | None
    """Logits from channels; None for the embedding itself, transposed (tied)."""

    def __check_init__(self):
        for block in self.blocks:
            block.streamed()
        if self.head is not None and self.head.bias is not None:
            raise ValueError("`head` must have no bias, as in Hugging Face's weights, got one")

    @property
    def vocabulary(self) -> int:
        """Number of tokens V."""
        return self.embedding.weight.shape[0]

    @property
    def d_model(self) -> int:
        """Channels H of the residual stream."""
        return self.embedding.weight.shape[1]

    @checked
    def __call__(
        self,
        tokens: Int[InputArray, " length"],
        state: eqx.nn.State,
        *,
        dt: Float[InputArray, " length"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "length vocabulary"], eqx.nn.State]:
        h = self.embedding.weight[tokens]
        h, state = run_blocks(self.blocks, h, state, dt=dt, key=key)
        return self.logits(h), state

    @checked
    def init_state(self) -> tuple[Any, ...]:
        """The carry before the first token: each layer's zero state."""
        return blocks_init_state(self.blocks)

    @checked
    def run(
        self,
        carry: tuple[Any, ...],
        tokens: Int[InputArray, " length"],
        length: Count | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "length d_model"]]:
        """A piece of a text: the next carry, and the residual stream after the last block.

        `logits` of a row are those of the token that follows it. Of a padded piece, `length` is the
        number of tokens, 1 or more: the carry is the one after them.
        """
        h = self.embedding.weight[tokens]
        after = []
        for block, before in zip(self.blocks, carry, strict=True):
            state, h = block.run(before, h, length)
            after.append(state)
        return tuple(after), h

    @checked
    def step(
        self,
        carry: tuple[Any, ...],
        token: Int[InputArray, ""],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, " vocabulary"]]:
        """One token: the next carry, and the logits of the token that follows.

        `dt` is the interval before the token, as in the call.
        """
        carry, h = step_blocks(self.blocks, carry, self.embedding.weight[token], dt)
        return carry, self.logits(h[None])[0]

    @checked
    def logits(self, h: Float[InputArray, "length d_model"]) -> Float[Array, "length vocabulary"]:
        """Logits from the residual stream after the last block."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return product(weight, jax.vmap(self.norm.norm)(h))


@checked
def language_model(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    *,
    vocabulary: int,
    d_model: int,
    blocks: int,
    norm: NormName = "rms",
    tied: bool = True,
    intervals: bool = False,
    key: PRNGKeyArray,
    **block: Any,
) -> tuple[LanguageModel, eqx.nn.State]:
    """A language model of `blocks` residual blocks of width `d_model`, and its (empty) state.

    `make_ssm(key)` makes a layer of that width. `norm` is "layer" or "rms": a mean over the batch
    and its length would leak later tokens into earlier ones. Embeddings start with a deviation of
    0.02, so that tied logits start small. `intervals` says whether the model will be given `dt`.
    `block` are other fields of `BlockSettings`.
    """
    check_knows_time(make_ssm, intervals)
    settings = BlockSettings(norm=norm, **block)
    if norm not in FINAL_NORMS:
        raise ValueError(
            f"`norm` of a language model must be one of {', '.join(FINAL_NORMS)}, got {norm!r}"
        )
    if vocabulary < 1:
        raise ValueError(f"`vocabulary` must be 1 or more, got {vocabulary}")
    embedding_key, head_key, *block_keys = jax.random.split(key, 2 + blocks)

    def build() -> LanguageModel:
        weight = EMBEDDING_DEVIATION * jax.random.normal(embedding_key, (vocabulary, d_model))
        head = Linear.init(d_model, vocabulary, use_bias=False, key=head_key)
        return LanguageModel(
            embedding=eqx.nn.Embedding(weight=weight),
            blocks=residual_blocks(make_ssm, settings, d_model=d_model, keys=block_keys),
            norm=FINAL_NORMS[norm](d_model, affine=settings.norm_affine, eps=settings.norm_epsilon),
            head=None if tied else head,
        )

    return eqx.nn.make_with_state(build)()


EMBEDDING_DEVIATION = 0.02
"""Standard deviation of the embeddings at the start (Radford et al. 2019)."""
