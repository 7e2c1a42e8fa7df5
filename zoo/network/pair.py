"""Classification of pairs of sequences: one shared tower for both, and a head for pairs."""

from collections.abc import Callable
from typing import Any, Literal, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..layers.base import AbstractSSM
from ..typing import InputArray, checked
from .block import AbstractBlock, BlockSettings, residual_blocks
from .classifier import ENCODERS, POOLS, Encoder, PoolName
from .deep import run_blocks
from .intervals import check_knows_time


class PairClassifier(eqx.Module):
    """Two sequences in, logits of their common class out, as for retrieval in Long Range Arena.

    Both run through the same encoder and blocks, one after the other; BatchNorm sees the first ones
    of a batch, then the second ones. The features a, b of the two, pooled over their lengths, meet
    in the head of the published S4 and S5 models: W2 gelu(W1 [a, b, a * b, a - b]).

    Called like `zoo.Classifier`, with both sequences along the first axis of `x`, and of
    `length` and `dt` if there are any.
    """

    encoder: Encoder
    blocks: tuple[AbstractBlock, ...]
    hidden: eqx.nn.Linear
    head: eqx.nn.Linear
    pooling: PoolName = eqx.field(static=True, default="mean")

    @checked
    def __call__(
        self,
        x: Float[InputArray, "2 length channels"] | Int[InputArray, "2 length"],
        state: eqx.nn.State,
        *,
        length: Int[InputArray, " 2"] | None = None,
        dt: Float[InputArray, "2 length"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, " classes"], eqx.nn.State]:
        keys = (None, None) if key is None else jax.random.split(key)
        features = []
        for which, tower_key in enumerate(keys):
            own = None if length is None else length[which]
            times = None if dt is None else dt[which]
            h = self.encoder(x[which])
            h, state = run_blocks(self.blocks, h, state, length=own, dt=times, key=tower_key)
            features.append(POOLS[self.pooling](h, own))
        a, b = features
        joined = jnp.concatenate([a, b, a * b, a - b])
        return self.head(jax.nn.gelu(self.hidden(joined))), state

    @checked
    def init_state(self) -> NoReturn:
        """A ValueError: a pair of sequences cannot stream, since one ends before the other
        begins."""
        raise ValueError(CANNOT_STREAM)

    @checked
    def step(self, *args: Any, **kwargs: Any) -> NoReturn:
        """A ValueError, as `init_state`."""
        raise ValueError(CANNOT_STREAM)


CANNOT_STREAM = "a PairClassifier cannot stream: call it with both sequences, which it compares"
"""Raises the ValueError of `init_state`."""


@checked
def pair_classifier(
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
) -> tuple[PairClassifier, eqx.nn.State]:
    """A classifier of pairs and its BatchNorm state; arguments as for `zoo.classifier`."""
    check_knows_time(make_ssm, intervals)
    settings = BlockSettings(**block)
    encoder_key, hidden_key, head_key, *block_keys = jax.random.split(key, 3 + blocks)

    def build() -> PairClassifier:
        return PairClassifier(
            encoder=ENCODERS[input_kind](input_size, d_model, key=encoder_key),
            blocks=residual_blocks(make_ssm, settings, d_model=d_model, keys=block_keys),
            hidden=eqx.nn.Linear(4 * d_model, d_model, key=hidden_key),
            head=eqx.nn.Linear(d_model, classes, key=head_key),
            pooling=pooling,
        )

    return eqx.nn.make_with_state(build)()
