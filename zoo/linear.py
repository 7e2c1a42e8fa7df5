"""Linear maps of arrays with any number of leading axes."""

import math

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray


class Linear(eqx.Module):
    """x -> weight x + bias.

    Unlike Equinox's it does not keep its sizes beside the arrays, so a layer whose states have
    become fewer is a tree of the same structure.
    """

    weight: Float[Array, "n m"]
    bias: Float[Array, " n"] | None = None

    @classmethod
    def init(
        cls, inputs: int, outputs: int, *, use_bias: bool = True, key: PRNGKeyArray
    ) -> "Linear":
        """Weights and bias uniform within 1 / sqrt(inputs)."""
        weight_key, bias_key = jax.random.split(key)
        bound = 1 / math.sqrt(inputs)
        weight = jax.random.uniform(weight_key, (outputs, inputs), minval=-bound, maxval=bound)
        start = jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound)
        return cls(weight, start if use_bias else None)

    def __call__(self, x: Float[Array, "*k m"]) -> Float[Array, "*k n"]:
        return affine(self, x)


def affine(linear: eqx.nn.Linear | Linear, x: Float[Array, "*k m"]) -> Float[Array, "*k p"]:
    """`linear` along the last axis.

    As x W^T and not W x, so that a batch is one product of matrices whose result is not transposed.
    """
    y = x @ linear.weight.T
    return y if linear.bias is None else y + linear.bias
