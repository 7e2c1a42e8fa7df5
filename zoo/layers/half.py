"""Layers whose parameters are in half precision. Complex numbers have no half precision, so these
layers compute in single precision.

Parameters in single and double precision pass through unchanged.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PyTree

from ..typing import InputArray, checked

Tree = TypeVar("Tree", bound=PyTree)


@checked
def widened(x: Float[InputArray, "*rest"]) -> Float[Array, "*rest"]:
    """`x` in single precision at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if _is_half(x) else jnp.asarray(x)


@checked
def as_complex(
    real: Float[InputArray, "*rest"], imag: Float[InputArray, "*rest"]
) -> Complex[Array, "*rest"]:
    """real + i imag, in single precision at least."""
    return jax.lax.complex(widened(real), widened(imag))


@checked
def with_feedthrough(
    y: Float[InputArray, "*lead d_model"],
    D: Float[InputArray, " d_model"],
    u: Float[InputArray, "*lead d_model"],
) -> Float[Array, "*lead d_model"]:
    """y + D u; in half precision where D and u are."""
    through = jnp.asarray(D) * jnp.asarray(u)
    return (y + through).astype(through.dtype) if _is_half(through) else y + through


@checked
def narrowed(layer: Tree, like: Tree) -> Tree:
    """`layer` in half precision where the parameters of `like` are."""
    return jax.tree.map(lambda x, old: x.astype(old.dtype) if _is_half(old) else x, layer, like)


def _is_half(x: InputArray) -> bool:
    return x.dtype in (jnp.bfloat16, jnp.float16)
