"""The state of a run, with its own sizes and with those of its programs."""

from typing import Any

from ..model.network import layer_sizes, parameter_count
from ..model.padding import Padding
from .step import TrainState


class HeldState:
    """A state, padded to the sizes of its programs while these have more states."""

    def __init__(self, state: TrainState, larger: Any | None = None):
        self.hold(state, larger)

    def hold(self, state: TrainState, larger: Any | None = None) -> None:
        """Go on with `state`, in programs of its own size or of those of `larger`.

        `larger` is the model that they are made for, its arrays or their shapes.
        """
        self._own: TrainState | None = state
        self._padding = None if larger is None else Padding(larger, state.params)
        self._wide = state if self._padding is None else self._padding.widen(state)
        self.spare = parameter_count(self._wide.params) - parameter_count(state.params)
        """How many weights the programs have in addition."""
        self.width = layer_sizes(self._wide.params)
        """States of the layers in the programs."""

    @property
    def own(self) -> TrainState:
        """The state, with as many states of the layers as they have."""
        own = self._own
        if own is None:
            own = self._wide if self._padding is None else self._padding.narrow(self._wide)
            self._own = own
        return own

    @property
    def wide(self) -> TrainState:
        """The state as the programs take it."""
        return self._wide

    @wide.setter
    def wide(self, state: TrainState) -> None:
        """Replace the state by the result of a program."""
        self._own, self._wide = None, state

    @property
    def is_padded(self) -> bool:
        """Whether the programs have more states than the layers."""
        return self._padding is not None
