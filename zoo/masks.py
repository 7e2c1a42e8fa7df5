"""Which samples of a padded sequence are its own: the one place where such masks are made."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from .typing import Count, InputArray, Size, checked


@checked
def within(length: Count | Int[InputArray, "*lead"], samples: Size) -> Bool[Array, "*lead length"]:
    """Which of `samples` samples are no padding, where `length` are a sequence's own.

    Several lengths make a row each. Raises as `check_length`.
    """
    check_length(length, samples)
    if np.ndim(length) == 0:
        return jnp.arange(samples) < length
    return jnp.arange(samples) < jnp.asarray(length)[..., None]


@checked
def rows_within(
    lengths: Int[InputArray, " batch"] | None, batch: int, samples: int
) -> Bool[np.ndarray, "{batch} {samples}"]:
    """`within` for each of `batch` sequences, as an array of NumPy; None for no padding at all."""
    own = np.full(batch, samples) if lengths is None else np.asarray(lengths)
    return np.arange(samples) < own[:, None]


@checked
def check_length(length: Any, samples: Size) -> None:
    """ValueError unless `length` is a whole number from 1 to `samples`, or several of these.

    Traced ones are trusted.
    """
    if isinstance(length, Tracer):
        return
    number = np.asarray(length)
    whole = np.issubdtype(number.dtype, np.integer)
    if not whole or not np.all((number >= 1) & (number <= samples)):
        raise ValueError(
            f"`length` must be a whole number from 1 to the {samples} samples given, got {length}"
        )
