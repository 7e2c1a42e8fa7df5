"""A model on the data of its task: one sample, or a batch of them."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from data.task import Batch
from zoo import BATCH_AXIS


def run_sequence(
    model: Any, norm_state: eqx.nn.State, sample: Batch, key: PRNGKeyArray | None = None
) -> tuple[Array, eqx.nn.State]:
    """The outputs of `model` for one sample, and the next BatchNorm state."""
    present = {"length": sample.lengths, "dt": sample.intervals}
    present = {name: x for name, x in present.items() if x is not None}
    return model(sample.inputs, norm_state, key=key, **present)


def run_batch(
    model: Any, norm_state: eqx.nn.State, batch: Batch, keys: Key[Array, " B"] | None = None
) -> tuple[Float[Array, "B ..."], eqx.nn.State]:
    """The outputs of `model` for the sequences of a batch, and its next BatchNorm state."""
    return jax.vmap(
        partial(run_sequence, model),
        in_axes=(None, 0, None if keys is None else 0),
        out_axes=(0, None),
        axis_name=BATCH_AXIS,
    )(norm_state, batch, keys)
