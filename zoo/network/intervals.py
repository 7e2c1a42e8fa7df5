"""Intervals between samples as an input of networks."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..layers.base import AbstractSSM
from ..typing import InputArray, checked


@checked
def interval_encoder(
    make_ssm: Callable[[PRNGKeyArray], AbstractSSM],
    intervals: bool,
    d_model: int,
    *,
    key: PRNGKeyArray,
) -> eqx.nn.Linear | None:
    """The encoder of intervals for layers that do not take them; None if none is needed."""
    if not intervals or make_ssm(key).takes_intervals:
        return None
    return eqx.nn.Linear(1, d_model, key=key)


@checked
def with_intervals(
    encoder: eqx.nn.Linear | None,
    h: Float[InputArray, "length d_model"],
    dt: Float[InputArray, " length"] | None,
) -> tuple[Float[Array, "length d_model"], Float[InputArray, " length"] | None]:
    """The residual stream before the first block, and the intervals for its layers. ValueError if a
    model that was made for intervals gets none.
    """
    if encoder is None:
        return h, dt
    if dt is None:
        raise ValueError("`dt` must be given, since this model was made for intervals, got None")
    return h + jax.vmap(encoder)(dt[:, None]), None


@checked
def step_interval(
    encoder: eqx.nn.Linear | None,
    h: Float[InputArray, " d_model"],
    dt: Float[InputArray, ""] | None,
) -> Float[Array, " d_model"]:
    """The residual stream of one sample with the interval before it. ValueError if the interval is
    missing, or if the model has no such input.
    """
    if (dt is None) != (encoder is None):
        allowed = "None" if encoder is None else "the interval before the sample"
        raise ValueError(f"`dt` must be {allowed} in a step of this model, got {dt}")
    return jnp.asarray(h) if encoder is None or dt is None else h + encoder(jnp.asarray(dt)[None])
