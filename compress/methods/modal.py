"""Methods that score the modes of a layer one by one."""

import abc
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from zoo import AbstractSSM, DiagonalLTI

from ..families import family_of
from ..linear.modes import ModalSpectrum
from ..model.record import LayerData
from ..plans import AbstractSpectrum
from . import AbstractMethod


class AbstractModalMethod(AbstractMethod):
    """A method that scores modes and drops those of the smallest scores. It mixes none of them."""

    words: ClassVar[str]
    """A description of the scores for readers."""

    @abc.abstractmethod
    def scores(self, system: DiagonalLTI) -> Float[np.ndarray, " n"]:
        """The score of each mode of a stable system, 0 or more."""

    def spectrum(self, name: str, layer: AbstractSSM, data: LayerData | None) -> AbstractSpectrum:
        if family_of(layer).needs_data:
            raise ValueError(
                f"`method` must be Data(batch=...) or Data(inputs=...) for {name}, a "
                f"{type(layer).__name__} whose states depend on data, got {self!r}"
            )
        score: Callable[[DiagonalLTI], Float[np.ndarray, " n"]] = self.scores
        return ModalSpectrum(name, layer, score, self.words)
