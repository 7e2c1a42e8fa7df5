"""Layers whose parameters are in half precision: no complex number is, so they compute in single.

Parameters in single and double precision pass through unchanged.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PyTree

Tree = TypeVar("Tree", bound=PyTree)


def widened(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """`x` in single precision at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if _is_half(x) else x


def as_complex(real: Float[Array, "*s"], imag: Float[Array, "*s"]) -> Complex[Array, "*s"]:
    """real + i imag, in single precision at least."""
    return jax.lax.complex(widened(real), widened(imag))


def with_feedthrough(
    y: Float[Array, "*L H"], D: Float[Array, " H"], u: Float[Array, "*L H"]
) -> Float[Array, "*L H"]:
    """y + D u; in half precision where D and u are."""
    through = D * u
    return (y + through).astype(through.dtype) if _is_half(through) else y + through


def narrowed(layer: Tree, like: Tree) -> Tree:
    """`layer` with half precision where the parameters of `like` have it."""
    return jax.tree.map(lambda x, old: x.astype(old.dtype) if _is_half(old) else x, layer, like)


def _is_half(x: Array) -> bool:
    return x.dtype in (jnp.bfloat16, jnp.float16)
