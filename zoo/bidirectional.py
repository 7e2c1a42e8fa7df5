"""Two layers over one sequence, one of them backwards."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .layer import AbstractSSM


class Bidirectional(eqx.Module):
    """y = forward(u) + reverse(backward(reverse(u))): every output sees the whole sequence.

    Each direction is a layer of its own, with its own state, and shrinks on its own. Both count
    the current input, as the public S5 does. There is no `step`: the future cannot be streamed.
    """

    forward: AbstractSSM
    backward: AbstractSSM

    def __call__(
        self, u: Float[Array, "L H"], dt: Float[Array, " L"] | None = None
    ) -> Float[Array, "L H"]:
        """`dt`, for layers that take it, are the intervals before each sample, in samples.

        Read backwards, the interval before a sample is the one that follows it; nothing follows
        the last sample, whose input is then held as long as the first one's.
        """
        if dt is None:
            return self.forward(u) + self.backward(u[::-1])[::-1]
        following = jnp.roll(dt, -1)
        return self.forward(u, dt) + self.backward(u[::-1], following[::-1])[::-1]  # pyright: ignore[reportCallIssue]
