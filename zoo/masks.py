"""Which samples of a padded sequence are no padding: the one place where that is said."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

Length = Int[jax.Array | np.ndarray, ""] | int
"""A number of samples, traced perhaps."""


def within(length: Length, samples: int) -> Bool[Array, " L"]:
    """The first `length` of `samples` samples. Raises as `check_length`."""
    check_length(length, samples)
    return jnp.arange(samples) < length


def check_length(length: Length, samples: int) -> None:
    """ValueError unless `length` is a whole number from 1 to `samples`; traced ones are trusted."""
    if isinstance(length, Tracer):
        return
    number = np.asarray(length)
    whole = number.ndim == 0 and np.issubdtype(number.dtype, np.integer)
    if not whole or not 1 <= number <= samples:
        raise ValueError(
            f"`length` must be a whole number from 1 to the {samples} samples given, got {length}"
        )
