"""Oscillators with a velocity and a position each, sample by sample.

    z_k = kept z_{k-1} + pulled x_{k-1} + force_k,    x_k = x_{k-1} + step z_k + push_k

The position moves by the new velocity, as in the equations. Slow motions so keep digits that one
matrix for both would round away. An oscillator with two equal eigenvalues has no diagonal form, so
it needs this form of the recurrence.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..typing import InputArray, checked
from .pieces import in_pieces, piece_axis, state_before

CHUNK = 32
"""Samples of a chunk. All chunks run at once, then the states carried between chunks are added. A
loop of CHUNK steps and a loop over the chunks replace one over all samples."""


class Kicks(NamedTuple):
    """The coefficients of the equations, one for each oscillator."""

    kept: Float[Array, " d_state"]
    pulled: Float[Array, " d_state"]
    step: Float[Array, " d_state"]


@checked
def oscillate(
    kicks: Kicks,
    force: Float[InputArray, "length d_state"],
    push: Float[InputArray, "length d_state"],
    s0: Float[InputArray, "d_state 2"],
) -> Float[Array, "length d_state 2"]:
    """All states (velocity, position), from `s0`."""
    L = force.shape[0]
    if piece_axis() is not None:
        with in_pieces(None):
            end = oscillate(kicks, force, push, jnp.zeros_like(s0))[-1]
            unit = jnp.broadcast_to(jnp.eye(2, dtype=s0.dtype)[:, None], (2, *s0.shape))
            free = jnp.zeros_like(force)
            left = jax.vmap(lambda s: oscillate(kicks, free, free, s)[-1])(unit)  # from, n, to
        s0 = state_before(end, s0, lambda left, s: jnp.einsum("bna,nb->na", left, s), left)
    if not isinstance(L, int):  # exported for any length
        return _sample_by_sample(kicks, s0, (force, push))[1]
    T = min(CHUNK, max(L, 1))
    whole = L // T * T
    early, pushed = (x[:whole].reshape(-1, T, x.shape[1]) for x in (force, push))
    states = _equal_chunks(kicks, early, pushed, s0)
    if whole == L:
        return states
    last = states[-1] if whole else s0
    return jnp.concatenate(
        [states, _equal_chunks(kicks, force[whole:][None], push[whole:][None], last)]
    )


@checked
def oscillate_once(
    kicks: Kicks,
    s: Float[InputArray, "*lead d_state 2"],
    force: Float[InputArray, "*lead d_state"] | float,
    push: Float[InputArray, "*lead d_state"] | float,
) -> Float[Array, "*lead d_state 2"]:
    """The next states."""
    velocity = kicks.kept * s[..., 0] + kicks.pulled * s[..., 1] + force
    return jnp.stack([velocity, s[..., 1] + kicks.step * velocity + push], axis=-1)


def _sample_by_sample(kicks: Kicks, s0: Any, driven: tuple[Any, Any]):
    """The last states and all of them, in a plain loop."""

    def sample(s, driven):
        s = oscillate_once(kicks, s, *driven)
        return s, s

    return jax.lax.scan(sample, s0, driven)


def _equal_chunks(kicks: Kicks, force: Any, push: Any, s0: Any):
    """All states of K chunks, from inputs [K T n], one after the other."""
    K, T, n = force.shape

    by_time = jnp.moveaxis(force, 1, 0), jnp.moveaxis(push, 1, 0)
    _, alone = _sample_by_sample(kicks, jnp.zeros((K, n, 2), s0.dtype), by_time)  # [T K n 2]

    def free(s, _):
        s = oscillate_once(kicks, s, 0.0, 0.0)
        return s, s

    start = jnp.broadcast_to(jnp.eye(2, dtype=s0.dtype)[:, None], (2, n, 2))
    last, powers = jax.lax.scan(free, start, length=T)  # [2 n 2], [T 2 n 2]: from, oscillator, to

    def chunk(s, end):
        return jnp.einsum("bna,nb->na", last, s) + end, s

    _, before = jax.lax.scan(chunk, s0, alone[-1])  # [K n 2]
    carried = jnp.einsum("tbna,knb->ktna", powers, before)
    return (jnp.moveaxis(alone, 0, 1) + carried).reshape(K * T, n, 2)
