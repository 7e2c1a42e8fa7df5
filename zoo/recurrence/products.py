"""Products of matrices with the rows of a batch: of few rows by a kernel where a CPU has one.

With few rows, as for one token of a text, a product takes as long as its matrix takes to be read.
XLA's reads it slower than memory allows, on one core, and copies it before if it is one of a stack.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, Int32

from ..typing import InputArray, checked
from .choice import on_cpu
from .compiled import few_products, streams
from .pallas import with_kernel
from .whole_batch import whole_batch

FEW = 32
"""Rows up to which the kernel is faster than XLA's product of matrices."""

LARGE = 2**14
"""Entries of a matrix from which on that is so."""

KINDS = ("float32", "bfloat16", "int8")
"""What matrices the kernel reads."""


@checked
def products(
    weight: Float[InputArray, "outputs inputs"], x: Float[InputArray, "rows inputs"]
) -> Float[Array, "rows outputs"]:
    """weight x for each row; `jax.vmap` over x adds rows."""
    (y,) = _products(weight, x[None])
    return y[0]


@checked
def stored_products(
    index: Int32[InputArray, ""],
    values: Float[InputArray, "matrices outputs inputs"]
    | Int8[InputArray, "matrices outputs inputs"],
    scale: Float[InputArray, "_ ..."],
    x: Float[InputArray, "rows inputs"],
) -> Float[Array, "rows outputs"]:
    """`products` of one matrix of a stack, which is not copied where there are few rows.

    The matrix is `values[index]`, its rows times those of `scale[index]` if that is not empty.
    """
    (y,) = _stored(index, values, scale, x[None])
    return y[0]


def _rows_times(weight, x):
    """weight x for all rows of a batch, as one product of matrices: x W^T, and dW = dy^T x.

    Products of arrays with more axes come to the same, but XLA transposes dy for that of dW.
    """
    b, k, m = x.shape

    def by_xla(weight, rows):
        return rows @ weight.T

    def by_kernel(weight, rows):
        none, index = jnp.zeros(0, jnp.float32), jnp.zeros((), jnp.int32)
        return _kernel(index, weight[None], none, rows)

    y = _faster(weight, x.reshape(b * k, m), by_xla, by_kernel)
    return [y.reshape(b, k, len(weight))]


def _stored_rows_times(index, values, scale, x):
    b, k, m = x.shape

    def by_xla(values, rows, index, scale):
        dtype = _dtype(values, rows)
        y = rows @ values[index].astype(dtype).T
        return y if scale.size == 0 else (y * scale[index]).astype(dtype)

    def by_kernel(values, rows, index, scale):
        return _kernel(index, values, scale, rows)

    y = _faster(values, x.reshape(b * k, m), by_xla, by_kernel, index, scale)
    return [y.reshape(b, k, values.shape[1])]


def _faster(weight, rows, by_xla, by_kernel, *more):
    """What both functions make of the arrays, by the faster one."""
    if not _is_for_kernel(weight, rows):
        return by_xla(weight, rows, *more)
    return with_kernel(by_xla, weight, rows, *more, cpu=by_kernel)


def _kernel(index, values, scale, rows):
    y = few_products(index, values, scale.astype(jnp.float32), rows.astype(jnp.float32))
    return y.astype(_dtype(values, rows))


def _dtype(values, rows):
    return rows.dtype if values.dtype == jnp.int8 else jnp.result_type(values, rows)


_products = whole_batch(_rows_times, shared=1)
_stored = whole_batch(_stored_rows_times, shared=3)


def _is_for_kernel(weight, rows) -> bool:
    outputs, inputs = weight.shape[-2:]
    n = rows.shape[0]
    if not isinstance(n, int) or not 0 < n <= FEW or outputs * inputs < LARGE:
        return False
    kinds = str(weight.dtype) in KINDS and str(rows.dtype) in ("float32", "bfloat16")
    return kinds and on_cpu() and streams("few_products", "float32")
