"""Two layers over one sequence, one of them in reverse."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ..layers.base import AbstractSSM
from ..layers.both_ways import cannot_stream, read_both_ways
from ..typing import Count, InputArray, checked

_refuse = cannot_stream("Bidirectional", "one of its two layers, `forward`")


class Bidirectional(eqx.Module):
    """y = forward(u) + reverse(backward(reverse(u))): every output sees the whole sequence.

    Each direction is a separate layer with its own state, and is cut separately. Both count the
    current input, as the public S5 does. `init_state`, `step` and `run` raise a ValueError, since
    outputs need future samples.
    """

    is_causal: ClassVar[bool] = False

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

        In the backward direction, the interval before a sample is the one after it. No interval
        follows the last sample, so its input is held as long as the first one's. For a padded
        sequence, `length` is its number of samples: the backward direction begins at the last of
        them.
        """
        return read_both_ways(self.forward, self.backward, u, dt, length)

    init_state = _refuse
    step = _refuse
    run = _refuse
