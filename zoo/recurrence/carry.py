"""States carried from chunk to chunk: x_k = a x_{k-1} + sources, and its adjoint.

The loop is XLA's, a kernel's on CPUs, or Pallas's on GPUs. Complex numbers are in two parts.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..derivative import both_ways
from ..typing import checked
from .compiled import adjoint_on_cpu, native, states_on_cpu
from .pallas import Kept, recurrence_on_gpu, with_kernel
from .samples import sample_at, with_sample, with_sample_read_back


@checked
def carry(
    order: Kept,
    real: Float[Array, " d_state"],
    imaginary: Float[Array, " d_state"],
    sources: Float[Array, "batch chunks 2 d_state"],
    x: Float[Array, "batch 2 d_state"],
) -> Any:
    """The states "before" or "after" each chunk, and after the last, of x <- a x + source.

    Results are [b K 2 n] and [b 2 n]; a is `real` + i `imaginary`. States are real parts beside
    imaginary parts, which is what matrix products make and take: a change from or to complex
    numbers would pass over all of them.
    """
    rules = (_carry_forward, _carry_tangent, _carry_backward)
    return both_ways(*(partial(rule, order) for rule in rules))(real, imaginary, sources, x)


def _carry_forward(order, real, imaginary, sources, x0):
    states, x = with_kernel(
        partial(_carry_loop, order),
        *(jnp.stack([real, imaginary]), sources, x0),
        cuda=lambda a, sources, x: tuple(
            recurrence_on_gpu(a[None, None], sources, x, order, False)
        ),
        cpu=partial(_carry_native, order) if native(sources.dtype) else None,
    )
    return (states, x), (real, imaginary, states, x0)


def _carry_native(order: Kept, a, sources, x):
    return states_on_cpu(a[None, None], sources, x, order, split=True)


def _carry_loop(order: Kept, a, sources, x, reverse: bool = False):
    """States after chunks overwrite the sources, which saves an array. States before chunks must be
    written before the source is read, so they need their own array.
    """
    K = sources.shape[1]
    in_place = order == "after"

    def step(i, carry):
        x, states = carry
        k = K - 1 - i if reverse else i
        after = _times(a, x) + sample_at(states if in_place else sources, k, axis=1)
        return after, with_sample(states, after if in_place else x, k, axis=1)

    start = x, sources if in_place else jnp.zeros_like(sources)
    x, states = jax.lax.fori_loop(0, K, step, start)
    return states, x


def _carry_tangent(order, kept, tangents):
    """The same recurrence, driven by da x_{k-1} + dsources."""
    real, imaginary, states, x0 = kept
    dreal, dimaginary, dsources, dx0 = tangents
    before = _states_before(order, states, x0)
    turned = jnp.stack([-dimaginary, dimaginary]) * before[:, :, ::-1]
    return carry(order, real, imaginary, dsources + dreal * before + turned, dx0)


def _states_before(order: Kept, states, x0):
    if order == "before":
        return states
    return jnp.concatenate([x0[:, None], states[:, :-1]], axis=1)


def _carry_backward(order, kept, cotangents):
    """The adjoint is the same recurrence, from the last chunk on, with the conjugate of a."""
    real, imaginary, states, x0 = kept
    dsources, dx, dreal, dimaginary = with_kernel(
        partial(_adjoint_loop, order),
        *(jnp.stack([real, imaginary]), states, x0, *cotangents),
        cuda=partial(_adjoint_on_gpu, order),
        cpu=partial(_adjoint_native, order) if native(states.dtype) else None,
    )
    return dreal, dimaginary, dsources, dx


def _adjoint_native(order: Kept, a, states, x0, dstates, dx):
    da, dsources, dx = adjoint_on_cpu(a[None, None], states, x0, dstates, dx, order, split=True)
    return dsources, dx, *jnp.sum(da, axis=(0, 1))


def _adjoint_on_gpu(order: Kept, a, states, x0, dstates, dx):
    before, adjoint = _states_before(order, states, x0), order
    if order == "after":
        adjoint = "adjoint"
    g, dx = recurrence_on_gpu(_conjugate(a)[None, None], dstates, dx, adjoint, True)
    return g, dx, *_sum_of_products(g, before)


def _adjoint_loop(order: Kept, a, states, x0, dstates, dx):
    """There are many states after chunks, so the sum is accumulated in the same pass. No copy of
    them with x0 in front is made, and g overwrites `dstates`.
    """
    a = _conjugate(a)
    if order == "before":
        g, dx = _carry_loop(order, a, dstates, dx, reverse=True)
        return g, dx, *_sum_of_products(g, states)
    K = states.shape[1]

    def step(i, carry):
        x, straight, crossed, gs = carry  # where g is not yet, its source is
        k = K - 1 - i
        before = jnp.where(k == 0, x0, sample_at(states, jnp.maximum(k - 1, 0), axis=1))
        g, gs = with_sample_read_back(gs, sample_at(gs, k, axis=1) + x, k, axis=1)
        straight, crossed = straight + g * before, crossed + g[:, ::-1] * before
        return _times(a, g), straight, crossed, gs

    nothing = jnp.zeros_like(dx)
    x, straight, crossed, gs = jax.lax.fori_loop(0, K, step, (dx, nothing, nothing, dstates))
    return gs, x, *_by_part(jnp.sum(straight, axis=0), jnp.sum(crossed, axis=0))


def _sum_of_products(g, x):
    """Real and imaginary part of the sum over g times the conjugate of x, both [b K 2 n]."""
    return _by_part(jnp.sum(g * x, axis=(0, 1)), jnp.sum(g[:, :, ::-1] * x, axis=(0, 1)))


def _by_part(straight, crossed):
    return jnp.sum(straight, axis=0), crossed[0] - crossed[1]


def _conjugate(a):
    return jnp.stack([a[0], -a[1]])


def _times(a, x):
    """a x of complex numbers by parts, [2 n] and [b 2 n]."""
    return a[0] * x + jnp.stack([-a[1], a[1]]) * x[:, ::-1]
