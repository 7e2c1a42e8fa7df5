"""What Equinox's linear maps do not say for arrays of any number of leading axes."""

import equinox as eqx
from jaxtyping import Array, Float


def bias_of(linear: eqx.nn.Linear) -> Float[Array, " n"] | float:
    """The bias, or zero where there is none."""
    return 0.0 if linear.bias is None else linear.bias


def affine(linear: eqx.nn.Linear, x: Float[Array, "*k m"]) -> Float[Array, "*k p"]:
    """`linear` along the last axis.

    As x W^T and not W x, so that a batch is one product of matrices whose result is not transposed.
    """
    return x @ linear.weight.T + bias_of(linear)
