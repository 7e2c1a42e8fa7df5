"""LAST: scores of modes by their H-infinity norms."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from zoo import DiagonalLTI

from ..linear.modes import layer_adapted, mode_gains
from .modal import AbstractModalMethod


@dataclass(frozen=True)
class LAST(AbstractModalMethod):
    """The square of each mode's H-infinity norm, over the sum of those that are not smaller.

    With `AcrossLayers`, which compares the scores of all layers, this is the published method.
    Source: Gwak, Moon, Ko, Park, Layer-Adaptive State Pruning for Deep State Space Models, NeurIPS
    2024, arXiv 2411.02824.
    """

    words: ClassVar[str] = "modes, H-infinity norms"

    def scores(self, system: DiagonalLTI) -> Float[np.ndarray, " n"]:
        return layer_adapted(mode_gains(system) ** 2)
