"""Arrays one after the other."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..typing import InputArray, checked


@checked
def joined(parts: Sequence[Float[InputArray, "_ *rest"]]) -> Float[Array, "_ *rest"]:
    """The `parts` one after the other along their first axis.

    Those of NumPy are joined by it: JAX would compile a program for each new size.
    """
    if all(isinstance(part, np.ndarray) for part in parts):
        return jax.device_put(np.concatenate(parts))
    return jnp.concatenate([jnp.asarray(part) for part in parts])
