"""Intervals between samples as an input of networks."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ..layers.base import AbstractSSM
from ..typing import checked


@checked
def check_knows_time(make_ssm: Callable[[PRNGKeyArray], AbstractSSM], intervals: bool) -> None:
    """A ValueError where there will be intervals, and layers that do not advance by them."""
    if not intervals:
        return
    layer = eqx.filter_eval_shape(make_ssm, jax.random.key(0))
    if not layer.takes_intervals:
        raise ValueError(
            "layers must advance by intervals (lru, s5, mamba, mamba2, gla, retnet and "
            f"gated_deltanet do) where sequences have some, got a {type(layer).__name__}"
        )
