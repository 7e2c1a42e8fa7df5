"""What Mamba and Mamba-2 have in common."""

import abc
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Float

from ..masks import within
from ..recurrence.selective import Signals
from ..typing import Count, InputArray, checked
from .affine import Linear
from .base import AbstractSelectiveSSM

StateMap = Callable[
    [Float[InputArray, "groups d_state *rest"]], Float[InputArray, "groups rank *rest"]
]
"""A linear map of the rows that make B, or C."""

SpectrumMap = Callable[[Float[InputArray, "spectra d_state"]], Float[InputArray, "spectra rank"]]
"""A map of log(-A), with one row for each channel or one row for all."""


class AbstractMambaSSM(AbstractSelectiveSSM):
    """A selective layer of the Mamba family, with a gate of its own around the recurrence.

    Its d channels have N states each, h_k = exp(dt_k A) h_{k-1} + dt_k x_k B_k and y_k = C_k h_k,
    and share B and C in groups. Intervals before the samples multiply their steps. The methods give
    the drive of the states and the output that follows from the states.
    """

    is_mixer: ClassVar[bool] = True
    takes_intervals: ClassVar[bool] = True

    in_proj: AbstractVar[Linear]
    """The convolution in front of the recurrence."""

    folds: ClassVar[bool]
    """Whether B and C are linear in the rows that make them."""

    is_tied: ClassVar[bool]
    """Whether all states of a channel have the same decay, and so have it in any basis."""

    @property
    @abc.abstractmethod
    def eigenvalues(self) -> Float[Array, "channels d_state"]:
        """Continuous-time eigenvalues A of each channel, per unit of dt."""

    @property
    @abc.abstractmethod
    def has_maps(self) -> bool:
        """Whether maps of B and C to the states follow their projections."""

    @abc.abstractmethod
    def with_maps(self) -> "AbstractMambaSSM":
        """The layer with maps of B and C that are the identity at first, so that states can be
        mixed."""

    @property
    @abc.abstractmethod
    def groups(self) -> int:
        """Groups G of d / G neighbouring channels that share B and C."""

    @abc.abstractmethod
    def signals(self, u: Float[InputArray, "length d_model"]) -> Signals:
        """The arguments of the recurrence on `u`."""

    @abc.abstractmethod
    def emit(
        self, u: Float[InputArray, "length d_model"], y: Float[InputArray, "length channels"]
    ) -> Float[Array, "length d_model"]:
        """The layer's output on `u` from the outputs `y` of its channels' recurrences."""

    @abc.abstractmethod
    def map_states(self, B: StateMap, C: StateMap, log_A: SpectrumMap) -> "AbstractMambaSSM":
        """The layer with other states: `B` and `C` are applied to all that makes B and C.

        `log_A` is applied to log(-A), with one row for each channel or one for all, if states
        differ in it.
        """

    @property
    def mixes_states(self) -> bool:
        """Whether any basis of the states can be written into the rows of B and C. Otherwise only a
        selection can."""
        return self.folds or self.has_maps

    @checked
    def resized(self, n: int) -> "AbstractMambaSSM":
        return self.map_states(*[lambda x: jnp.zeros((len(x), n, *x.shape[2:]))] * 3)

    @checked
    def first_states(self, n: int) -> "AbstractMambaSSM":
        return self.map_states(*[lambda x: x[:, :n]] * 3)


@checked
def lasting(
    step: Float[InputArray, "length _"],
    dt: Float[InputArray, " length"] | None,
    length: Count | None,
) -> Float[Array, "length _"]:
    """Steps times the intervals `dt` before each sample, and zero from `length` on.

    A sample of no duration leaves the state as it is.
    """
    step = jnp.asarray(step)
    if dt is not None:
        step = step * jnp.asarray(dt)[:, None]
    if length is not None:
        step = jnp.where(within(length, step.shape[0])[:, None], step, 0)
    return step
