"""Two layers over one sequence, one of them backwards."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ..layers.base import AbstractSSM
from ..layers.both_ways import cannot_stream, read_both_ways
from ..typing import Count, InputArray, checked

_refuse = cannot_stream("Bidirectional", "one of its two layers, `forward`")


class Bidirectional(eqx.Module):
    """y = forward(u) + reverse(backward(reverse(u))): every output sees the whole sequence.

    Each direction is a layer of its own, with its own state, and shrinks on its own. Both count
    the current input, as the public S5 does. `init_state`, `step` and `run` raise a ValueError: the
    future cannot be streamed.
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

        Read backwards, the interval before a sample is the one that follows it; nothing follows
        the last sample, whose input is then held as long as the first one's. Of a padded sequence,
        `length` is the number of samples: backwards it begins at the last of them.
        """
        return read_both_ways(self.forward, self.backward, u, dt, length)

    init_state = _refuse
    step = _refuse
    run = _refuse
