"""Matrices that are stored otherwise than as an array: in 8 bits, or as one of a stack."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, Int32

from ..recurrence.products import stored_products
from ..typing import InputArray, checked


class AbstractMatrix(eqx.Module):
    """A matrix instead of the array `weight` of a linear map or an embedding.

    It has a shape and a dtype, is multiplied with vectors, and gives rows, as an array does.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Outputs and inputs; a stack has its matrices in front."""

    @property
    @abc.abstractmethod
    def dtype(self) -> Any:
        """Of the numbers that it stands for."""

    @abc.abstractmethod
    def stored(self) -> tuple[Array, Array, Array]:
        """Index, values and scale, as `stored_products` takes them."""

    @abc.abstractmethod
    def __getitem__(self, rows: Any) -> Float[Array, "..."]:
        """Rows of the matrix, by one index or an array of them."""

    def __len__(self) -> int:
        return self.shape[0]

    @checked
    def times(self, x: Float[InputArray, "rows inputs"]) -> Float[Array, "rows outputs"]:
        """The matrix times each row of x."""
        return stored_products(*self.stored(), x)

    def __matmul__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return self.times(x[None])[0]


class Int8Matrix(AbstractMatrix):
    """Whole numbers from -127 to 127, times a step for each row: 8 bits and symmetric.

    The product is that with `values * scale[:, None]`, in the precision of what it is multiplied
    with. A stack has its matrices along a first axis.
    """

    values: Int8[Array, "*lead outputs inputs"]
    scale: Float[Array, "*lead outputs"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> Any:
        return self.scale.dtype

    @checked
    def stored(self) -> tuple[Array, Array, Array]:
        return jnp.zeros((), jnp.int32), self.values[None], self.scale[None]

    @checked
    def dense(self) -> Float[Array, "*lead outputs inputs"]:
        """The numbers that it stands for."""
        return self.values * self.scale[..., None]

    def __getitem__(self, rows: Any) -> Float[Array, "..."]:
        return self.values[rows] * self.scale[rows][..., None]


class OfStack(AbstractMatrix):
    """One matrix of a stack of equal ones, which is read where it lies."""

    stack: Float[Array, "matrices outputs inputs"] | Int8Matrix
    index: Int32[Array, ""]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stack.shape[1:]

    @property
    def dtype(self) -> Any:
        return self.stack.dtype

    @checked
    def stored(self) -> tuple[Array, Array, Array]:
        if isinstance(self.stack, Int8Matrix):
            return self.index, self.stack.values, self.stack.scale
        return self.index, self.stack, jnp.zeros(0, jnp.float32)

    def __getitem__(self, rows: Any) -> Float[Array, "..."]:
        return self.stack[self.index][rows]
