"""One sample of the selective scans: of Mamba's, and of Mamba-2's with a decay for each head."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..typing import InputArray, checked
from .choice import on_cpu
from .compiled import selective_sample, streams
from .pallas import with_kernel
from .plain import is_plain
from .whole_batch import whole_batch


@checked
def sample(
    x: Float[InputArray, " channels"],
    dt: Float[InputArray, " heads"],
    A: Float[InputArray, "heads _"],
    B: Float[InputArray, "groups d_state"],
    C: Float[InputArray, "groups d_state"],
    h: Float[InputArray, "channels d_state"],
) -> tuple[Float[Array, " channels"], Float[Array, "channels d_state"]]:
    """y = C h and the next states h <- exp(dt A) h + dt x B, of one dtype.

    Neighbouring channels of a head share dt and A, which is one number for each state or one for
    all; those of a group share B and C. `jax.vmap` for a batch, which is computed as one.
    """
    form = _plain if is_plain() else _batch
    y, h = form(A, x[None], dt[None], B[None], C[None], h[None])
    return y[0], h[0]


def _plain(A, x, dt, B, C, h):
    b, d, N = h.shape
    heads, groups = len(A), B.shape[1]
    drive = (x.reshape(b, heads, d // heads) * dt[..., None]).reshape(b, groups, d // groups, 1)
    decay = jnp.exp(dt[..., None] * A)[:, :, None]
    kept = (decay * h.reshape(b, heads, d // heads, N)).reshape(b, groups, d // groups, N)
    h = kept + drive * B[:, :, None]
    y = jnp.einsum("bgcn,bgn->bgc", h, C)
    return y.reshape(b, d), h.reshape(b, d, N)


def _sample(A, x, dt, B, C, h):
    def kernel(A, x, dt, B, C, h):
        return selective_sample(x, dt, A, B, C, h)

    if h.size and on_cpu() and streams("selective_step", h.dtype):
        return list(with_kernel(_plain, A, x, dt, B, C, h, cpu=kernel))
    return list(_plain(A, x, dt, B, C, h))


_batch = whole_batch(_sample, shared=1)
