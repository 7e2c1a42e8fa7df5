"""Two layers over one sequence, one of them backwards."""

from typing import Any, NoReturn

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..layers.base import AbstractSSM
from ..masks import check_length
from ..typing import Count, InputArray, Size, checked


class Bidirectional(eqx.Module):
    """y = forward(u) + reverse(backward(reverse(u))): every output sees the whole sequence.

    Each direction is a layer of its own, with its own state, and shrinks on its own. Both count
    the current input, as the public S5 does. `init_state`, `step` and `run` raise a ValueError: the
    future cannot be streamed.
    """

    forward: AbstractSSM
    backward: AbstractSSM

    @checked
    def __call__(
        self,
        u: Float[InputArray, "length d_model"],
        dt: Float[InputArray, " length"] | None = None,
        *,
        length: Count | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "length d_model"]:
        """`dt`, for layers that take it, are the intervals before each sample, in samples.

        Read backwards, the interval before a sample is the one that follows it; nothing follows
        the last sample, whose input is then held as long as the first one's. Of a padded sequence,
        `length` is the number of samples: backwards it begins at the last of them.
        """
        backwards = _reversed(u.shape[0], length)
        if dt is None:
            return self.forward(u) + self.backward(u[backwards])[backwards]
        last = u.shape[0] if length is None else length
        following = jnp.where(jnp.arange(u.shape[0]) == last - 1, dt[0], jnp.roll(dt, -1))
        y = self.backward(u[backwards], dt=following[backwards])  # pyright: ignore[reportCallIssue]
        return self.forward(u, dt=dt) + y[backwards]  # pyright: ignore[reportCallIssue]

    @checked
    def init_state(self) -> NoReturn:
        """A ValueError: there is nothing to stream from."""
        raise ValueError(CANNOT_STREAM)

    @checked
    def step(self, *args: Any, **kwargs: Any) -> NoReturn:
        """A ValueError, as `init_state`."""
        raise ValueError(CANNOT_STREAM)

    @checked
    def run(self, *args: Any, **kwargs: Any) -> NoReturn:
        """A ValueError, as `init_state`."""
        raise ValueError(CANNOT_STREAM)


CANNOT_STREAM = (
    "a Bidirectional layer cannot stream, since its outputs need the samples that follow: call it "
    "with the whole sequence, or take one of its two layers, `forward`"
)
"""Why there is no carry."""


def _reversed(samples: Size, length: Count | None) -> Int[Array, " length"] | slice:
    """Indices that reverse the first `length` samples, and that undo it too."""
    if length is None:
        return slice(None, None, -1)
    check_length(length, samples)
    return (length - 1 - jnp.arange(samples)) % samples
