"""The normalisation of Mamba-2, with its gate."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..typing import InputArray, checked


class GatedRMSNorm(eqx.Module):
    """weight * r / rms(r), r = y * silu(z), the mean square taken in each of `groups` groups."""

    weight: Float[Array, " channels"]
    groups: int = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    @checked
    def __call__(
        self, y: Float[InputArray, "*lead channels"], z: Float[InputArray, "*lead channels"]
    ) -> Float[Array, "*lead channels"]:
        kind, dtype = y.dtype, jnp.result_type(y, jnp.float32)
        r = y.astype(dtype) * jax.nn.silu(z.astype(dtype))
        grouped = r.reshape(*r.shape[:-1], self.groups, r.shape[-1] // self.groups)
        square = jnp.mean(grouped**2, axis=-1, keepdims=True)
        normal = (grouped * jax.lax.rsqrt(square + self.eps)).reshape(r.shape)
        return self.weight * normal.astype(kind)
