"""Reading a sequence forwards and backwards."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..masks import check_length
from ..typing import Count, InputArray, Size, checked

Reader = Callable[..., Float[Array, "length d_model"]]
"""A causal layer: from a sequence, and perhaps its intervals, to a sequence."""


@checked
def read_both_ways(
    forward: Reader,
    backward: Reader,
    u: Float[InputArray, "length d_model"],
    dt: Float[InputArray, " length"] | None = None,
    length: Count | None = None,
) -> Float[Array, "length d_model"]:
    """forward(u) + reverse(backward(reverse(u))).

    `dt` are the intervals before each sample. In the backward direction, the interval before a
    sample is the one after it. No interval follows the last sample, so its input is held as long as
    the first one's. For a padded sequence, `length` is its number of samples: the backward
    direction begins at the last of them.
    """
    samples = u.shape[0]
    backwards = reversing(samples, length)
    if dt is None:
        return forward(u) + backward(u[backwards])[backwards]
    last = samples if length is None else length
    following = jnp.where(jnp.arange(samples) == last - 1, dt[0], jnp.roll(dt, -1))
    return forward(u, dt=dt) + backward(u[backwards], dt=following[backwards])[backwards]


@checked
def reversing(samples: Size, length: Count | None) -> Int[Array, " length"] | slice:
    """Indices that reverse the first `length` samples. They are their own inverse."""
    if length is None:
        return slice(None, None, -1)
    check_length(length, samples)
    return (length - 1 - jnp.arange(samples)) % samples


@checked
def cannot_stream(what: str, instead: str) -> Callable[..., Any]:
    """A method that raises a ValueError, since the layer needs future samples."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(
            f"a {what} layer cannot stream, since its outputs need the samples that follow: call "
            f"it with the whole sequence, or take {instead}"
        )

    return refuse
