"""Residual blocks around the layers."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..layers.base import AbstractSSM
from ..layers.half import Precision, computed_in, widened
from ..typing import Count, InputArray, checked
from .attention import WindowAttention
from .bidirectional import Bidirectional
from .norm import NORM_EPSILON, NORMS, AbstractNorm, FixedNorm, NormName, SampleNorm
from .pointwise import GATES, GLU, Dropout, GateName, HalfGLU, gelu, summed_once

SCAN_ABOVE = 8
"""Equal blocks from which on a program for each would take long to compile."""


class AbstractBlock(eqx.Module):
    """x + after(ssm(norm(x))), sequence by sequence or, where the parts allow it, streamed.

    Where the norm does not come first, it is norm(x + after(ssm(x))). Norms, and what of a layer
    is no product of matrices, are in single precision at least, whatever `precision` says.
    """

    norm: eqx.AbstractVar[AbstractNorm]
    ssm: eqx.AbstractVar[Any]
    """An `AbstractSSM`, a `Bidirectional` or a `WindowAttention`."""
    norm_first: eqx.AbstractVar[bool]
    precision: eqx.AbstractVar[Precision]
    """That of the activations: `zoo.in_precision` sets it."""
    scan_above: eqx.AbstractVar[int]
    """Equal neighbours of a network run in one scan where they are more than this."""

    @abc.abstractmethod
    def after(
        self, y: Float[InputArray, "length d_model"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length d_model"]:
        """The function of the layer's output, sample by sample, before the sum."""

    @abc.abstractmethod
    def end(self, x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        """The function of the sum, sample by sample, at the end of the block."""

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

        Samples at and after `length` are padding: they do not change earlier outputs, and their
        outputs are undefined. `dt` are the intervals before each sample, for layers that take them.
        """
        x = summed_once(computed_in(x, self.precision))
        given: dict[str, Any] = {} if dt is None else {"dt": dt}
        if length is not None and not self.ssm.is_causal:
            given["length"] = length
        if not self.norm_first:
            y = self.end(
                x + self.after(self._stream(self.ssm(self._for_layer(x), **given)), key=key)
            )
            y, state = self.norm(self._for_norm(y), state, length)
            return self._stream(y), state
        y, state = self.norm(self._for_norm(x), state, length)
        y = self._stream(self.ssm(self._for_layer(y), **given))
        return self.end(x + self.after(y, key=key)), state

    def _stream(self, x: Float[Array, "*lead d_model"]) -> Float[Array, "*lead d_model"]:
        return computed_in(x, self.precision)

    def _for_layer(self, x: Float[Array, "*lead d_model"]) -> Float[Array, "*lead d_model"]:
        return computed_in(x, "float32" if self.precision == "float32" else "bf16")

    def _for_norm(self, x: Float[Array, "*lead d_model"]) -> Float[Array, "*lead d_model"]:
        return x if self.precision == "float32" else widened(x)

    @checked
    def streamed(
        self,
    ) -> tuple[eqx.nn.LayerNorm | eqx.nn.RMSNorm | FixedNorm, AbstractSSM | WindowAttention]:
        """The norm of a sample and the layer; a ValueError if this block cannot be streamed."""
        if not isinstance(self.norm, SampleNorm):
            raise ValueError(
                "`norm` must be 'layer' or 'rms' where sequences are streamed (a mean over the "
                "batch and its length sees the future; a trained one is fixed by "
                f"`zoo.fixed_norms`), got {type(self.norm).__name__}"
            )
        if isinstance(self.ssm, Bidirectional) or not self.ssm.is_causal:
            name = type(self.ssm).__name__
            raise ValueError(f"`ssm` must be causal where sequences are streamed, got {name}")
        return self.norm.norm, self.ssm

    @checked
    def run(
        self, carry: Any, x: Float[InputArray, "length d_model"], length: Count | None = None
    ) -> tuple[Any, Float[Array, "length d_model"]]:
        """A piece of a sequence, as `AbstractSSM.run`, without dropout."""
        norm, ssm = self.streamed()
        return self._continued(norm, lambda x: ssm.run(carry, x, length), x)

    @checked
    def step(
        self,
        carry: Any,
        x_t: Float[InputArray, " d_model"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[Any, Float[Array, " d_model"]]:
        """One sample, as `AbstractSSM.step`, without dropout.

        `dt` is the interval before the sample, for layers that take it.
        """
        norm, ssm = self.streamed()

        def one(x: Any) -> tuple[Any, Any]:
            after, y_t = ssm.step(carry, x[0], **({} if dt is None else {"dt": dt}))
            return after, y_t[None]

        after, y = self._continued(norm, one, x_t[None])
        return after, y[0]

    def _continued(self, norm: Any, layer: Callable[[Any], Any], x: Any) -> tuple[Any, Any]:
        """The block around `layer`, which gives a carry and outputs."""
        after = eqx.nn.inference_mode(self).after
        x = self._stream(x)
        if self.norm_first:
            carry, y = layer(self._stream(jax.vmap(norm)(self._for_norm(x))))
            return carry, self.end(x + after(self._stream(y)))
        carry, y = layer(x)
        y = self.end(x + after(self._stream(y)))
        return carry, self._stream(jax.vmap(norm)(self._for_norm(y)))


class Block(AbstractBlock):
    """x + dropout(GLU(dropout(GELU(ssm(norm(x)))))), the paper's residual block.

    Without a gate it ends with the first dropout.
    """

    norm: AbstractNorm
    ssm: AbstractSSM | Bidirectional
    glu: GLU | HalfGLU | None
    dropout: Dropout
    norm_first: bool = eqx.field(static=True, default=True)
    precision: Precision = eqx.field(static=True, default="float32")
    scan_above: int = eqx.field(static=True, default=SCAN_ABOVE)

    @checked
    def after(
        self, y: Float[InputArray, "length d_model"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length d_model"]:
        activated = self.dropout(gelu(y), key=key, draw=0)
        if self.glu is None:
            return activated
        return self.dropout(self.glu(activated, y), key=key, draw=1)

    @checked
    def end(self, x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        return x


class MixerBlock(AbstractBlock):
    """x + dropout(ssm(norm(x))), for layers that gate and mix channels themselves (Mamba), and for
    models that are linear but for their norms."""

    norm: AbstractNorm
    ssm: AbstractSSM | Bidirectional
    dropout: Dropout
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
        return x


class AttentionBlock(AbstractBlock):
    """x + dropout(attention(norm(x))), used between blocks of state-space layers."""

    norm: AbstractNorm
    attention: WindowAttention
    dropout: Dropout
    norm_first: bool = eqx.field(static=True, default=True)
    precision: Precision = eqx.field(static=True, default="float32")
    scan_above: int = eqx.field(static=True, default=SCAN_ABOVE)

    @property
    def ssm(self) -> WindowAttention:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attention, in the field of the layer."""
        return self.attention

    @checked
    def after(
        self, y: Float[InputArray, "length d_model"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "length d_model"]:
        return self.dropout(y, key=key)

    @checked
    def end(self, x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
        return x


@dataclass(frozen=True)
class BlockSettings:
    """Settings of the residual blocks of a network."""

    norm: NormName = "batch"
    """Normalisation: by the batch, by the batch with running statistics, or sample by sample."""
    norm_first: bool = True
    """Whether to normalise the input of a layer; otherwise the output of the block."""
    norm_affine: bool = True
    """Whether a norm has a weight and a bias."""
    norm_epsilon: float = NORM_EPSILON
    """Added to variances and mean squares."""
    gate: GateName = "full_glu"
    """The gate of the layer's activated outputs, by the names of the public S5 code; `linear`: no
    activation either."""
    dropout: float = 0.0
    """Share of the values that dropout sets to zero."""
    bidirectional: bool = False
    """Whether each block has a second layer that runs in reverse."""
    attention_every: int = 0
    """A block of sliding-window attention after every so many blocks, except the last; 0 for
    none."""
    attention_window: int = 64
    """Samples that attention sees: the present one and those before it."""
    attention_heads: int = 4
    """Heads of attention; must divide d_model."""
    scan_above: int = SCAN_ABOVE
    """Equal neighbouring blocks, of which more run in one scan: a program for all of them."""

    def __post_init__(self):
        if self.scan_above < 1:
            raise ValueError(f"`scan_above` must be 1 or more, got {self.scan_above}")
        for name, allowed in (("norm", NORMS), ("gate", GATES)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}")


@checked
def blocks_init_state(blocks: Sequence[AbstractBlock]) -> tuple[Any, ...]:
    """Each layer's zero state; a ValueError if a block cannot be streamed."""
    return tuple(block.streamed()[1].init_state() for block in blocks)


@checked
def step_blocks(
    blocks: Sequence[AbstractBlock],
    carry: tuple[Any, ...],
    x_t: Float[InputArray, " d_model"],
    dt: Float[InputArray, ""] | None = None,
) -> tuple[tuple[Any, ...], Float[Array, " d_model"]]:
    """One sample through all blocks: the next carry, and the residual stream after the last one.

    `dt` is the interval before the sample, for layers that take it.
    """
    after = []
    for block, before in zip(blocks, carry, strict=True):
        state, x_t = block.step(before, x_t, dt)
        after.append(state)
    return tuple(after), jnp.asarray(x_t)


@checked
def residual_block(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    settings: BlockSettings,
    *,
    d_model: int,
    key: PRNGKeyArray,
) -> Block | MixerBlock:
    """The block for the layer: a `MixerBlock` for a mixer and without activations, otherwise a
    `Block`."""
    forward_key, backward_key, gate_key = jax.random.split(key, 3)
    forward = make_ssm(forward_key)
    both = settings.bidirectional
    if both and not forward.is_causal:
        raise ValueError(
            f"`bidirectional` must be False for a {type(forward).__name__}, which reads both ways, "
            "got True"
        )
    ssm = Bidirectional(forward, make_ssm(backward_key)) if both else forward
    common = {"ssm": ssm, **_common(settings, d_model)}
    if forward.is_mixer or settings.gate == "linear":
        return MixerBlock(**common)
    return Block(glu=GATES[settings.gate](d_model, key=gate_key), **common)


@checked
def attention_block(settings: BlockSettings, *, d_model: int, key: PRNGKeyArray) -> AttentionBlock:
    """A block of sliding-window attention."""
    attention = WindowAttention.init(
        d_model, heads=settings.attention_heads, window=settings.attention_window, key=key
    )
    return AttentionBlock(attention=attention, **_common(settings, d_model))


def _common(settings: BlockSettings, d_model: int) -> dict[str, Any]:
    """What all blocks have besides their layers."""
    norm = NORMS[settings.norm]
    return {
        "norm": norm(d_model, affine=settings.norm_affine, eps=settings.norm_epsilon),
        "dropout": Dropout(settings.dropout),
        "norm_first": settings.norm_first,
        "scan_above": settings.scan_above,
    }


@checked
def residual_blocks(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    settings: BlockSettings,
    *,
    d_model: int,
    keys: Sequence[PRNGKeyArray],
) -> tuple[AbstractBlock, ...]:
    """A `residual_block` with these settings for each key, and attention between them."""
    blocks: list[AbstractBlock] = []
    for k, key in enumerate(keys, start=1):
        blocks.append(residual_block(make_ssm, settings, d_model=d_model, key=key))
        every = settings.attention_every
        if every and k % every == 0 and k < len(keys):
            own = jax.random.fold_in(key, 1)
            blocks.append(attention_block(settings, d_model=d_model, key=own))
    return tuple(blocks)
