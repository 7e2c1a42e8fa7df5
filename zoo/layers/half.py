"""Half precision: layers whose parameters are in it, and what is computed in it by a policy.

No complex number is in half precision, so layers of such parameters compute in single. Parameters
in single and double precision pass through unchanged.
"""

from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PyTree

from ..typing import InputArray, checked

Tree = TypeVar("Tree", bound=PyTree)

Precision = Literal["float32", "bf16", "bf16-systems"]
"""What activations and products of matrices are computed in. float32 leaves them as they are;
bf16-systems concerns the products of linear systems alone."""


@checked
def widened(x: Float[InputArray, "*rest"]) -> Float[Array, "*rest"]:
    """`x` in single precision at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if is_half(x) else jnp.asarray(x)


@checked
def computed_in(x: Float[InputArray, "*rest"], precision: Precision) -> Float[Array, "*rest"]:
    """`x` in the precision of activations."""
    match precision:
        case "bf16":
            return jnp.asarray(x, jnp.bfloat16)
        case "bf16-systems":
            return widened(x)
        case _:
            return jnp.asarray(x)


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
    return (y + through).astype(through.dtype) if is_half(through) else y + through


@checked
def narrowed(layer: Tree, like: Tree) -> Tree:
    """`layer` in half precision where the parameters of `like` are."""
    return jax.tree.map(lambda x, old: x.astype(old.dtype) if is_half(old) else x, layer, like)


@checked
def is_half(x: InputArray) -> bool:
    """Whether the numbers of `x` have 16 bits."""
    return x.dtype in (jnp.bfloat16, jnp.float16)
