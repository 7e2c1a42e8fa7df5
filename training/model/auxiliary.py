"""Additional terms of the loss: distillation, and a penalty on Hankel singular values. Both are
baselines of the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from compress import hankel_singular_values
from data.task import Batch
from zoo.layers.base import as_linear

from ..settings.config import DistillationConfig, RunConfig
from .network import ssm_layers

Join = Callable[[Float[Array, ""], Any, Array, Batch, Any, Array], Float[Array, ""]]
"""`join(loss, model, outputs, batch, arrays, step)`: the training loss after `step` steps."""


@dataclass(frozen=True)
class Auxiliary:
    """A function of the training loss, and the arrays that it needs on the device."""

    join: Join
    arrays: Any = ()


def make_auxiliary(
    config: RunConfig[Any, Any], teacher: tuple[Any, eqx.nn.State] | None, answer: Callable
) -> Auxiliary:
    """The terms that `config` adds to the loss. `teacher` is a trained model and its BatchNorm
    state.

    `answer(model, norm_state, batch)` runs a model on a batch.
    """
    parts: list[Auxiliary] = []
    if teacher is not None:
        parts.append(_distillation(config.distillation, teacher, answer))
    if config.regularization.hankel > 0:
        parts.append(_price(config))

    def join(loss, model, outputs, batch, arrays, step):
        for part, own in zip(parts, arrays, strict=True):
            loss = part.join(loss, model, outputs, batch, own, step)
        return loss

    return Auxiliary(join, tuple(part.arrays for part in parts))


def _price(config: RunConfig[Any, Any]) -> Auxiliary:
    """The weight of the penalty on Hankel singular values, which rises in its warm-up (as in arXiv
    2510.22951)."""
    weight, warmup = config.regularization.hankel, config.regularization.warmup * config.steps

    def join(loss, model, outputs, batch, arrays, step):
        share = jnp.minimum(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
        return loss + weight * share * hankel_nuclear_norm(model)

    return Auxiliary(join)


def hankel_nuclear_norm(model: Any) -> Float[Array, ""]:
    """The mean over the layers of sum(sigma), the nuclear norm of the layer's Hankel operator.

    Of the real map; sums of its 2n values over two, so that it compares with n complex ones.
    Source: Forgione et al. 2024; Schwerdtner et al. 2025.
    """
    norms = [
        jnp.sum(jnp.asarray(hankel_singular_values(as_linear(layer).to_lti()))) / 2
        for layer in ssm_layers(model)
    ]
    return jnp.mean(jnp.stack(norms))


def _distillation(
    config: DistillationConfig, teacher: tuple[Any, eqx.nn.State], answer: Callable
) -> Auxiliary:
    """alpha * loss + (1 - alpha) * T^2 * KL(teacher || student), softened by the temperature T."""
    arrays, static = eqx.partition(teacher, eqx.is_array)
    alpha, T = config.alpha, config.temperature

    def join(loss, model, outputs, batch, arrays, step):
        taught, norm_state = eqx.combine(arrays, static)
        told = jax.lax.stop_gradient(answer(eqx.nn.inference_mode(taught), norm_state, batch)[0])
        divergence = soft_divergence(told / T, outputs / T)
        return alpha * loss + (1 - alpha) * T**2 * divergence

    return Auxiliary(join, arrays)


def soft_divergence(told: Float[Array, "*b k"], said: Float[Array, "*b k"]) -> Float[Array, ""]:
    """Mean KL divergence of softmax(said) from softmax(told)."""
    p = jax.nn.softmax(told)
    return jnp.mean(jnp.sum(p * (jax.nn.log_softmax(told) - jax.nn.log_softmax(said)), axis=-1))
