"""Sequences in pieces, one on each device of a mesh axis, with one exchange of what is carried on.

A piece takes a state s to T s + e: e is what its own inputs leave of a zero state, T what it leaves
of any. Each device works out both for its piece, gathers those of all, and so has the state that
its piece begins with. The inputs themselves stay where they are.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..typing import checked

_axis: contextvars.ContextVar[str | None] = contextvars.ContextVar("axis", default=None)


@contextlib.contextmanager
@checked
def in_pieces(axis: str | None) -> Iterator[None]:
    """Inside, what recurrences are given is this device's piece along the mesh axis `axis`.

    They have to be traced in `jax.shard_map` then. None: sequences are whole.
    """
    token = _axis.set(axis)
    try:
        yield
    finally:
        _axis.reset(token)


@checked
def piece_axis() -> str | None:
    """The axis that `in_pieces` has set."""
    return _axis.get()


@checked
def state_before(
    end: Inexact[Array, "*shape"],
    start: Inexact[Array, "*shape"],
    onward: Callable[..., Any],
    transition: Any = (),
) -> Inexact[Array, "*shape"]:
    """The state that this device's piece begins with.

    `end` is what its inputs leave of a zero state, `start` the state before the whole sequence.
    `onward(transition, s)` is what a piece leaves of the state s: of each piece by the arrays
    `transition` of its own.
    """
    axis = piece_axis()
    assert axis is not None
    pieces = jax.lax.all_gather((transition, end), axis)
    own = jax.lax.axis_index(axis)

    def one(state: Any, piece: Any) -> Any:
        number, (transition, end) = piece
        after = onward(transition, state) + end
        return jnp.where(number < own, after, state), None

    numbers = jnp.arange(jax.lax.axis_size(axis))
    return jax.lax.scan(one, jnp.asarray(start, end.dtype), (numbers, pieces))[0]


@checked
def window_before(
    window: Float[Array, "taps channels"], x: Float[Array, "length channels"]
) -> Float[Array, "taps channels"]:
    """The last samples before this device's piece, for a convolution: `window` before the first.

    ValueError for pieces of fewer samples than the window has.
    """
    axis, width = piece_axis(), len(window)
    if axis is None:
        return window
    if len(x) < width:
        raise ValueError(f"`u` must have {width} samples or more on each device, got {len(x)}")
    size = jax.lax.axis_size(axis)
    last = x[len(x) - width :].astype(window.dtype)
    before = jax.lax.ppermute(last, axis, [(i, i + 1) for i in range(size - 1)])
    return jnp.where(jax.lax.axis_index(axis) == 0, window, before)
