"""AIRE-Prune: scores of modes by the energy of their impulse responses."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from zoo import DiagonalLTI

from ..linear.modes import layer_adapted, mode_energies
from .modal import AbstractModalMethod


@dataclass(frozen=True)
class ImpulseEnergy(AbstractModalMethod):
    """The energy of each mode's impulse response, over the sum of those that are not smaller.

    With `AcrossLayers`, which compares the scores of all layers. The energy is the published one;
    how it is normalised within a layer is that of `LAST`. Source: Padhy, Camacho, Mukhopadhyay,
    AIRE-Prune, ICLR 2026, arXiv 2602.00534.
    """

    words: ClassVar[str] = "modes, impulse energies"

    def scores(self, system: DiagonalLTI) -> Float[np.ndarray, " n"]:
        return layer_adapted(mode_energies(system))
