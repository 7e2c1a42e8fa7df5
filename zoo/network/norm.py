"""Normalisation between the layers: by batch or by sample."""

import abc
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..derivative import both_ways
from ..masks import within
from ..typing import Count, InputArray, checked

BATCH_AXIS = "batch"
"""The axis name of `jax.vmap` over a batch: BatchNorm takes its mean over it."""

NormName = Literal["batch", "batch-ema", "layer", "rms"]

NORM_EPSILON = 1e-5
"""Added to variances and mean squares."""

MOMENTUM = 0.9
"""Of the running mean and variance of BatchNorm."""

EMA_MOMENTUM = 0.99
"""Momentum where running statistics normalise in training too: that of the paper's code and
Equinox's default."""


class AbstractNorm(eqx.Module):
    """Normalisation of a sequence, by channels or by samples."""

    @abc.abstractmethod
    def __call__(
        self,
        x: Float[InputArray, "length d_model"],
        state: eqx.nn.State,
        length: Count | None = None,
    ) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
        """The normalised sequence and the next state. Samples from `length` on are padding."""

    @abc.abstractmethod
    def fixed(self, state: eqx.nn.State) -> "SampleNorm":
        """What this norm does at inference, sample by sample, with the statistics in `state`."""


class AbstractBatchNorm(AbstractNorm):
    """Each channel by a mean and a variance over batch and length, running ones at inference.

    Running sums start at mean 0 and variance 1. Padding does not count.
    """

    weight: Float[Array, " d_model"] | None
    bias: Float[Array, " d_model"] | None
    running: eqx.nn.StateIndex
    inference: bool
    eps: float = eqx.field(static=True)

    @checked
    def __init__(self, d_model: int, *, affine: bool = True, eps: float = NORM_EPSILON):
        self.weight, self.bias = _affine(d_model, affine)
        start = jnp.zeros((), jnp.int32), jnp.zeros(d_model), jnp.ones(d_model)
        self.running = eqx.nn.StateIndex(start)
        self.inference, self.eps = False, eps

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length d_model"],
        state: eqx.nn.State,
        length: Count | None = None,
    ) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
        if self.inference:
            return self.fixed(state)(x, state)
        return self.trained(x, state, length)

    @abc.abstractmethod
    def trained(
        self, x: Float[InputArray, "length d_model"], state: eqx.nn.State, length: Count | None
    ) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
        """The normalised sequence and the next state while training."""


class BatchNorm(AbstractBatchNorm):
    """Each channel by its mean and variance over batch and length, running ones at inference.

    The numbers of `eqx.nn.BatchNorm(mode="batch")`, without its transposes: running sums start at
    mean 0 and variance 1 and decay by `MOMENTUM`; at inference they are divided by the weight that
    they have gathered. Padding does not count.
    """

    @checked
    def trained(
        self, x: Float[InputArray, "length d_model"], state: eqx.nn.State, length: Count | None
    ) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
        count, mean, variance = state.get(self.running)
        now_mean = _mean_over_batch(x, length)
        now_variance = _mean_over_batch(_square_about(now_mean, x), length)
        y = _normalized(self, x, now_mean, now_variance)
        now = jax.lax.stop_gradient((now_mean, now_variance))
        pairs = zip((mean, variance), now, strict=True)
        after = (MOMENTUM * old + (1 - MOMENTUM) * new for old, new in pairs)
        return y, state.set(self.running, (count + 1, *after))

    @checked
    def fixed(self, state: eqx.nn.State) -> "SampleNorm":
        count, mean, variance = state.get(self.running)
        gathered = jnp.where(count == 0, 1, 1 - MOMENTUM**count)
        return _fixed(self, mean / gathered, variance / gathered)


class EMABatchNorm(AbstractBatchNorm):
    """BatchNorm that normalises by running statistics in training too.

    The numbers of `eqx.nn.BatchNorm(mode="ema")`, Equinox's default and what the paper's code uses:
    the running mean and variance start as those of the first batch, decay by `EMA_MOMENTUM`, and
    the present batch enters with weight 1 - EMA_MOMENTUM. Gradients pass through this share alone.
    Padding is excluded.
    """

    @checked
    def trained(
        self, x: Float[InputArray, "length d_model"], state: eqx.nn.State, length: Count | None
    ) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
        count, mean, variance = state.get(self.running)
        now_mean = _mean_over_batch(x, length)
        now_variance = _mean_over_batch((x - now_mean) ** 2, length)
        share = jnp.where(count == 0, 1.0, 1 - EMA_MOMENTUM)
        mean = share * now_mean + (1 - share) * mean
        variance = share * now_variance + (1 - share) * variance
        kept = count + 1, *jax.lax.stop_gradient((mean, variance))
        return _normalized(self, x, mean, variance), state.set(self.running, kept)

    @checked
    def fixed(self, state: eqx.nn.State) -> "SampleNorm":
        _, mean, variance = state.get(self.running)
        return _fixed(self, mean, variance)


def _affine(d_model: int, affine: bool) -> tuple[Array, Array] | tuple[None, None]:
    return (jnp.ones(d_model), jnp.zeros(d_model)) if affine else (None, None)


def _fixed(norm: AbstractBatchNorm, mean: Array, variance: Array) -> "SampleNorm":
    weight = jnp.ones_like(mean) if norm.weight is None else norm.weight
    bias = jnp.zeros_like(mean) if norm.bias is None else norm.bias
    return SampleNorm(FixedNorm(mean, weight * jax.lax.rsqrt(variance + norm.eps), bias))


def _normalized(norm: AbstractBatchNorm, x: Array, mean: Array, variance: Array) -> Array:
    weight = jnp.ones_like(mean) if norm.weight is None else norm.weight
    bias = jnp.zeros_like(mean) if norm.bias is None else norm.bias
    return _normalize(x, mean, variance + norm.eps, weight, bias)


def _mean_over_batch(
    x: Float[Array, "length d_model"], length: Count | None
) -> Float[Array, " d_model"]:
    """The mean over all samples of the batch that are not padding."""
    try:
        jax.lax.axis_size(BATCH_AXIS)
    except NameError:
        raise ValueError(
            "BatchNorm must be called in a batch while it trains: use jax.vmap(..., "
            f"axis_name={BATCH_AXIS!r}), or eqx.nn.inference_mode(model)"
        ) from None
    if length is None:
        return jax.lax.pmean(jnp.mean(x, axis=0), BATCH_AXIS)
    total = jnp.sum(x, axis=0, where=within(length, len(x))[:, None])
    return jax.lax.psum(total, BATCH_AXIS) / jax.lax.psum(jnp.asarray(length, x.dtype), BATCH_AXIS)


def _square_forward(mean, x):
    return (x - mean) ** 2, (mean, x)


def _square_tangent(kept, tangents):
    mean, x = kept
    return 2 * (x - mean) * tangents[1]


def _square_backward(kept, d):
    mean, x = kept
    return jnp.zeros_like(mean), 2 * d * (x - mean)


_square_about = both_ways(_square_forward, _square_tangent, _square_backward)
"""About the mean of x itself, of which the mean of this is independent to first order."""


def _normalize_forward(x, mean, variance, weight, bias):
    slope = jax.lax.rsqrt(variance)
    return (x - mean) * (slope * weight) + bias, (x, mean, slope, weight)


def _normalize_tangent(kept, tangents):
    x, mean, slope, weight = kept
    dx, dmean, dvariance, dweight, dbias = tangents
    dslope = -0.5 * slope**3 * dvariance
    steeper = (x - mean) * (dslope * weight + slope * dweight)
    return (dx - dmean) * (slope * weight) + steeper + dbias


def _normalize_backward(kept, dy):
    """Two sums over the sequence serve all four derivatives but that of x."""
    x, mean, slope, weight = kept
    dbias, dweight = jnp.sum(dy, axis=0), jnp.sum(dy * ((x - mean) * slope), axis=0)
    dmean, dvariance = -slope * weight * dbias, -0.5 * slope**2 * weight * dweight
    return dy * (slope * weight), dmean, dvariance, dweight, dbias


_normalize = both_ways(_normalize_forward, _normalize_tangent, _normalize_backward)


class FixedNorm(eqx.Module):
    """(x - center) * scale + bias, channel by channel: a BatchNorm with fixed statistics."""

    center: Float[Array, " d_model"]
    scale: Float[Array, " d_model"]
    bias: Float[Array, " d_model"]

    @checked
    def __call__(self, x: Float[InputArray, " d_model"]) -> Float[Array, " d_model"]:
        return (x - self.center) * self.scale + self.bias


class SampleNorm(AbstractNorm):
    """Normalises each sample by itself: by the mean and variance of its channels, by their mean
    square, or by fixed numbers."""

    norm: eqx.nn.LayerNorm | eqx.nn.RMSNorm | FixedNorm

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length d_model"],
        state: eqx.nn.State,
        length: Count | None = None,
    ) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
        return jax.vmap(self.norm)(x), state

    @checked
    def fixed(self, state: eqx.nn.State) -> "SampleNorm":
        return self


@checked
def fixed_norms(model: Any, state: eqx.nn.State) -> Any:
    """`model` at inference, with norms that act on one sample at a time.

    A BatchNorm becomes a `FixedNorm` of its running statistics in `state`, so that the model can be
    streamed (`step`), and needs no state.
    """

    def is_norm(node: Any) -> bool:
        return isinstance(node, AbstractNorm)

    fixed = jax.tree.map(lambda x: x.fixed(state) if is_norm(x) else x, model, is_leaf=is_norm)
    return eqx.nn.inference_mode(fixed)


@checked
def layer_norm(d_model: int, *, affine: bool = True, eps: float = NORM_EPSILON) -> SampleNorm:
    """Layer normalisation (Ba et al. 2016)."""
    return SampleNorm(eqx.nn.LayerNorm(d_model, eps=eps, use_weight=affine, use_bias=affine))


@checked
def rms_norm(d_model: int, *, affine: bool = True, eps: float = NORM_EPSILON) -> SampleNorm:
    """Root mean square normalisation (Zhang & Sennrich 2019), without a bias."""
    return SampleNorm(eqx.nn.RMSNorm(d_model, eps=eps, use_weight=affine, use_bias=False))


NORMS: dict[str, Callable[..., AbstractNorm]] = {
    "batch": BatchNorm,
    "batch-ema": EMABatchNorm,
    "layer": layer_norm,
    "rms": rms_norm,
}
"""Norms by name: `norm(d_model, affine=, eps=)`; `affine` says whether it has a weight and a
bias."""
