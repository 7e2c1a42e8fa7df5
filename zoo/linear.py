"""What Equinox's linear maps do not say for arrays of any number of leading axes."""

import equinox as eqx
from jaxtyping import Array, Float


def bias_of(linear: eqx.nn.Linear) -> Float[Array, " n"] | float:
    """The bias, or zero where there is none."""
    return 0.0 if linear.bias is None else linear.bias
