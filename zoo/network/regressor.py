"""Regression: values at every sample, also for irregular sampling."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..layers.affine import affine
from ..layers.base import AbstractSSM
from ..typing import Count, InputArray, checked
from .block import (
    AbstractBlock,
    BlockSettings,
    blocks_init_state,
    residual_blocks,
    step_blocks,
)
from .classifier import LinearEncoder
from .deep import run_blocks
from .intervals import check_knows_time
from .recent import Recent


class FrameEncoder(eqx.Module):
    """One picture per sample: Float[L, height * width] -> Float[L, H].

    The encoder of the pendulum in S5 (appendix G.3, after CRU, arXiv 2111.11344): 12 filters of
    5x5, 12 of 3x3 at every second pixel, each with ReLU and 2x2 max pooling, and a linear map.
    """

    wide: eqx.nn.Conv2d
    narrow: eqx.nn.Conv2d
    linear: eqx.nn.Linear
    frame: tuple[int, int] = eqx.field(static=True)

    @checked
    def __init__(self, frame: tuple[int, int], d_model: int, *, key: PRNGKeyArray):
        sides = [((side // 2 - 1) // 2 + 1) // 2 for side in frame]
        if min(sides) < 1:
            raise ValueError(f"`frame` must have 6 pixels or more on each side, got {frame}")
        wide_key, narrow_key, linear_key = jax.random.split(key, 3)
        self.wide = eqx.nn.Conv2d(1, FILTERS, 5, padding=2, key=wide_key)
        self.narrow = eqx.nn.Conv2d(FILTERS, FILTERS, 3, stride=2, padding=1, key=narrow_key)
        self.linear = eqx.nn.Linear(FILTERS * sides[0] * sides[1], d_model, key=linear_key)
        self.frame = frame

    @checked
    def __call__(self, x: Float[InputArray, "length pixels"]) -> Float[Array, "length d_model"]:
        return jax.vmap(self._picture)(x)

    def _picture(self, pixels: Float[Array, " pixels"]) -> Float[Array, " d_model"]:
        h = _pooled(jax.nn.relu(_convolved(self.wide, pixels.reshape(1, *self.frame))))
        return self.linear(_pooled(jax.nn.relu(_convolved(self.narrow, h))).ravel())


def _convolved(conv: eqx.nn.Conv2d, h: Float[Array, "..."]) -> Float[Array, "..."]:
    """`conv(h)`, of [inputs, height, width], as one product of matrices.

    In a loop over steps, as training has one, XLA computes the gradient of a convolution on a CPU
    three times slower.
    """
    assert conv.bias is not None
    assert not isinstance(conv.padding, str)
    taps, stride = conv.weight.shape[2], conv.stride[0]
    h = jnp.pad(h, ((0, 0), *conv.padding))
    a, b = (stride * ((side - taps) // stride) + 1 for side in h.shape[1:])
    moved = [h[:, i : i + a : stride, j : j + b : stride] for i in range(taps) for j in range(taps)]
    weight = conv.weight.reshape(*conv.weight.shape[:2], -1)
    return jnp.einsum("oit,tiab->oab", weight, jnp.stack(moved)) + conv.bias


def _pooled(h: Float[Array, "..."]) -> Float[Array, "..."]:
    """The largest of every 2x2 pixels of [filters, height, width], as `eqx.nn.MaxPool2d(2, 2)`,
    whose gradient is slow."""
    n, a, b = h.shape[0], h.shape[1] // 2, h.shape[2] // 2
    return jnp.max(h[:, : 2 * a, : 2 * b].reshape(n, a, 2, b, 2), axis=(2, 4))


FILTERS = 12


class Regressor(eqx.Module):
    """Maps a sequence to k values at each of its samples: encoder, blocks, linear head.

    `dt` are the intervals before each sample, in units of a usual one: all layers must take them.
    Otherwise called like `zoo.Classifier`; values from `length` on mean nothing.
    """

    encoder: LinearEncoder | FrameEncoder
    blocks: tuple[AbstractBlock, ...]
    head: eqx.nn.Linear
    targets: tuple[int, ...] | None = eqx.field(static=True)
    """The channels that a forecast predicts, as changes from their present values."""
    recent: Recent | None = None
    """The level that inputs and changes are relative to; None for none."""

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length channels"],
        state: eqx.nn.State,
        *,
        length: Count | None = None,
        dt: Float[InputArray, " length"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "length outputs"], eqx.nn.State]:
        x = jnp.asarray(x)
        level, unit = (0.0, None) if self.recent is None else self.recent(x, dt)
        u = x if unit is None else (x - level) / unit
        h, state = run_blocks(self.blocks, self.encoder(u), state, length=length, dt=dt, key=key)
        return self.values(h, x, unit), state

    @checked
    def values(
        self,
        h: Float[InputArray, "length d_model"],
        x: Float[InputArray, "length channels"],
        unit: Float[InputArray, "length channels"] | None = None,
    ) -> Float[Array, "length outputs"]:
        """Values from the residual stream after the last block. `x` are the inputs, `unit` is what
        changes are in units of."""
        y = affine(self.head, h)
        if self.targets is None:
            return y
        ahead = y.shape[1] // len(self.targets)
        if unit is not None:
            y = y * _repeated(unit, self.targets, ahead)
        return y + _repeated(x, self.targets, ahead)

    @checked
    def init_state(self) -> tuple[Any, ...]:
        """The carry before the first sample. A ValueError if the model cannot be streamed."""
        carry = blocks_init_state(self.blocks)
        return carry if self.recent is None else (self.recent.init_state(), *carry)

    @checked
    def step(
        self,
        carry: tuple[Any, ...],
        x_t: Float[InputArray, " channels"],
        dt: Float[InputArray, ""] | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, " outputs"]]:
        """One sample, without dropout: the next carry, and the values at it.

        `dt` is the interval before the sample, as in the call.
        """
        if self.recent is None:
            carry, h = step_blocks(self.blocks, carry, self.encoder(x_t[None])[0], dt)
            return carry, self.values(h[None], x_t[None])[0]
        totals, (level, unit) = self.recent.step(carry[0], x_t, dt)
        u = (x_t - level) / unit
        carry, h = step_blocks(self.blocks, carry[1:], self.encoder(u[None])[0], dt)
        return (totals, *carry), self.values(h[None], x_t[None], unit[None])[0]


def _repeated(x: InputArray, places: tuple[int, ...], times: int) -> Array:
    """Some columns of `x`, all of them so many times. Slices, for ONNX has no gather."""
    x = jnp.asarray(x)
    return jnp.concatenate(
        [jax.lax.slice_in_dim(x, k, k + 1, axis=1) for k in places] * times, axis=1
    )


@checked
def regressor(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    *,
    input_size: int,
    outputs: int,
    d_model: int,
    blocks: int,
    frame: tuple[int, int] | None = None,
    intervals: bool = False,
    targets: tuple[int, ...] | None = None,
    recent: float | int | None = None,
    key: PRNGKeyArray,
    **block: Any,
) -> tuple[Regressor, eqx.nn.State]:
    """A model of `outputs` values at every sample, and its BatchNorm state.

    `frame` is the height and width of pictures whose pixels are the `input_size` channels; they are
    then encoded as pictures. `intervals` says whether it will be given `dt`. `targets` are the
    channels that a forecast is of: the outputs are their next values, ordered by the step that they
    are for, then by channel, and begin at the present ones. With `recent`, inputs and forecasts are
    relative to the mean and deviation of each channel over about so many samples before
    (`zoo.network.recent`). The rest is as for `zoo.classifier`.
    """
    check_knows_time(make_ssm, intervals)
    settings = BlockSettings(**block)
    if frame is not None and frame[0] * frame[1] != input_size:
        raise ValueError(f"`frame` must have {input_size} pixels (input_size), got {frame}")
    if targets is not None and (not targets or outputs % len(targets)):
        raise ValueError(f"`targets` must be as many as divide outputs={outputs}, got {targets}")
    if recent is not None and (targets is None or not recent > 0):
        raise ValueError(
            f"`recent` must be above 0, for a forecast (`targets`), or None, got {recent}"
        )
    # one key is unused, so that a seed gives the same model as before
    encoder_key, head_key, _, *block_keys = jax.random.split(key, 3 + blocks)

    def build() -> Regressor:
        return Regressor(
            encoder=(
                LinearEncoder(input_size, d_model, key=encoder_key)
                if frame is None
                else FrameEncoder(frame, d_model, key=encoder_key)
            ),
            blocks=residual_blocks(make_ssm, settings, d_model=d_model, keys=block_keys),
            head=eqx.nn.Linear(d_model, outputs, key=head_key),
            targets=targets,
            recent=None if recent is None else Recent(float(recent), input_size),
        )

    return eqx.nn.make_with_state(build)()
