"""Masks of the valid samples of padded sequences. All masks are made here."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from .typing import Count, InputArray, Size, checked


@checked
def within(length: Count | Int[InputArray, "*lead"], samples: Size) -> Bool[Array, "*lead length"]:
    """Mask of the first `length` of `samples` samples, those that are not padding. Several lengths
    give one row each. Raises as `check_length`.
    """
    check_length(length, samples)
    if np.ndim(length) == 0:
        return jnp.arange(samples) < length
    return jnp.arange(samples) < jnp.asarray(length)[..., None]


@checked
def rows_within(
    lengths: Int[InputArray, " batch"] | None, batch: int, samples: int
) -> Bool[np.ndarray, "{batch} {samples}"]:
    """`within` for each of `batch` sequences, as a NumPy array; None if there is no padding."""
    own = np.full(batch, samples) if lengths is None else np.asarray(lengths)
    return np.arange(samples) < own[:, None]


@checked
def check_length(length: Any, samples: Size) -> None:
    """ValueError unless `length` is a whole number from 1 to `samples`, or an array of such
    numbers. Traced numbers are not checked.
    """
    if isinstance(length, Tracer):
        return
    number = np.asarray(length)
    whole = np.issubdtype(number.dtype, np.integer)
    if not whole or not np.all((number >= 1) & (number <= samples)):
        raise ValueError(
            f"`length` must be a whole number from 1 to the {samples} samples given, got {length}"
        )
