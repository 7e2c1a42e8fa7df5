"""Linear maps of arrays with any number of leading axes."""

import math

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ..recurrence.products import products
from ..typing import InputArray, checked
from .half import is_half
from .matrix import AbstractMatrix


class Linear(eqx.Module):
    """x -> weight x + bias.

    Unlike Equinox's, it does not store its sizes beside the arrays. A layer with fewer states is
    therefore a tree of the same structure.
    """

    weight: Float[Array, "outputs inputs"]
    """An array; in models at inference an `AbstractMatrix` may have its place (`zoo.quantize`)."""
    bias: Float[Array, " outputs"] | None = None

    @classmethod
    @checked
    def init(
        cls, inputs: int, outputs: int, *, use_bias: bool = True, key: PRNGKeyArray
    ) -> "Linear":
        """Weights and bias uniform within 1 / sqrt(inputs)."""
        weight_key, bias_key = jax.random.split(key)
        bound = 1 / math.sqrt(inputs)
        weight = jax.random.uniform(weight_key, (outputs, inputs), minval=-bound, maxval=bound)
        start = jax.random.uniform(bias_key, (outputs,), minval=-bound, maxval=bound)
        return cls(weight, start if use_bias else None)

    @checked
    def __call__(
        self, x: Float[InputArray, "*lead {self.weight.shape[1]}"]
    ) -> Float[Array, "*lead {self.weight.shape[0]}"]:
        return affine(self, x)


@checked
def affine(
    linear: eqx.nn.Linear | Linear, x: Float[InputArray, "*lead inputs"]
) -> Float[Array, "*lead outputs"]:
    """`linear` along the last axis; in half precision where its weight is."""
    y = product(linear.weight, x)
    if linear.bias is None:
        return y
    return (y + linear.bias).astype(y.dtype) if is_half(y) else y + linear.bias


@checked
def product(
    weight: Float[InputArray, "outputs inputs"] | AbstractMatrix,
    x: Float[InputArray, "*lead inputs"],
) -> Float[Array, "*lead outputs"]:
    """weight x along the last axis; in half precision if the weight is."""
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if isinstance(weight, AbstractMatrix):
        y = weight.times(rows)
    else:
        y = products(weight, rows.astype(weight.dtype) if is_half(weight) else rows)
    return y.reshape(*x.shape[:-1], len(weight))
