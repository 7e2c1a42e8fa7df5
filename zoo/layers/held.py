"""A layer around a layer: what both of them are."""

from typing import Any, ClassVar

from ..typing import checked
from .base import AbstractSSM


class AbstractHolder(AbstractSSM):
    """A layer that holds another, says of itself what that one says, and calls it its own way."""

    dynamics: ClassVar[tuple[str, ...]] = ()

    layer: AbstractSSM

    @property
    def d_model(self) -> int:
        return self.layer.d_model

    @property
    def d_state(self) -> int:
        return self.layer.d_state

    @property
    def is_mixer(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layer.is_mixer

    @property
    def takes_intervals(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layer.takes_intervals

    @property
    def is_causal(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layer.is_causal

    @checked
    def init_state(self) -> Any:
        return self.layer.init_state()

    @checked
    def resized(self, n: int) -> AbstractSSM:
        return self.layer.resized(n)

    @checked
    def first_states(self, n: int) -> AbstractSSM:
        return self.layer.first_states(n)
