"""Conversion of layers to double precision and back. Reductions are computed in double precision
for models of any precision."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

P = ParamSpec("P")
T = TypeVar("T")


def is_inexact(x: Any) -> bool:
    """Whether `x` is a JAX or NumPy array of floating-point or complex numbers."""
    return isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.inexact)


def rounding_of(tree: PyTree) -> float:
    """The largest relative rounding of an array of `tree`."""
    return max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(tree) if is_inexact(x))


def widen(tree: PyTree) -> PyTree:
    """Every array of `tree` in double precision. Only inside `jax.enable_x64(True)`."""

    def wide(x):
        if not is_inexact(x):
            return x
        dtype = np.complex128 if jnp.issubdtype(x.dtype, jnp.complexfloating) else np.float64
        # not jnp.asarray, which compiles a program for each new shape
        return jax.device_put(np.asarray(x).astype(dtype))

    return jax.tree.map(wide, tree)


def of_numpy(tree: PyTree) -> PyTree:
    """Every floating-point or complex array of `tree` as one of NumPy."""
    return jax.tree.map(lambda x: np.asarray(x) if is_inexact(x) else x, tree)


def narrow(tree: PyTree, like: PyTree) -> PyTree:
    """The values of `tree` in the kind of array that `like` has at the same place.

    Shapes are those of `tree`; dtype, weak type, placement and array library those of `like`.
    """

    def narrowed(x: Any, old: Any) -> Any:
        return narrow_array(x, old) if isinstance(old, jax.Array | np.ndarray) else x

    return jax.tree.map(narrowed, tree, like)


def narrow_array(x: Any, like: Any) -> Any:
    """`narrow` for one array."""
    x = np.asarray(x).astype(like.dtype)
    if isinstance(like, np.ndarray):
        return x
    array = jax.device_put(x)
    if like.weak_type:
        array = jnp.zeros_like(like, shape=x.shape).at[...].set(array)
    if like.committed and _divides(like.sharding, x.shape):
        array = jax.device_put(array, like.sharding)
    return array


def jit_for_once(function: Callable[P, T]) -> Callable[P, T]:
    """`eqx.filter_jit` without most optimisations, for functions that run about once for each
    shape. Compilation, which takes most of their time, is then twice as fast.
    """
    jit: Any = eqx.filter_jit
    return jit(function, compiler_options={"xla_backend_optimization_level": 0})


def _divides(sharding: jax.sharding.Sharding, shape: tuple[int, ...]) -> bool:
    """Whether arrays of this shape can be placed so."""
    try:
        sharding.shard_shape(shape)
    except ValueError:
        return False
    return True
