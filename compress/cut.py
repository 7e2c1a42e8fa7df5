"""What every cut of a layer can say: the layer before and after, and how moments follow it."""

import abc
from dataclasses import dataclass
from typing import Any

from zoo import AbstractSSM

from .linear.jacobian import Leaves


@dataclass(frozen=True)
class AbstractCut(abc.ABC):
    """A layer before and after its cut.

    The methods take numbers for some of the leaves of `before`, by their places, each in the shape
    of the parameter; what is missing counts as zero. They return numbers in the shapes of `after`.
    """

    before: AbstractSSM
    after: AbstractSSM

    @abc.abstractmethod
    def gradients(self, arrays: Leaves) -> Leaves:
        """Gradients, or what is linear in them, carried through the adjoint of the lift."""

    @abc.abstractmethod
    def squares(self, arrays: Leaves) -> Leaves:
        """Squares of gradients, carried through the squares of the same coefficients."""

    @abc.abstractmethod
    def copies(self, arrays: Leaves) -> Leaves:
        """Another layer's parameters, an average of these say, cut as these were."""

    def filled(self, rank: int) -> "AbstractCut":
        """The same cut with states that do nothing yet behind the others, `rank` in all.

        For the layers of a stack, which keep one number of states. ValueError where a cut always
        leaves as many states as it is asked for.
        """
        raise ValueError(
            f"`rank` must be {self.after.d_state} for a {type(self).__name__}, got {rank}"
        )

    @abc.abstractmethod
    def first_entries(self, place: int, x: Any) -> Any:
        """The first entries of `x`, in the shape of the leaf of `before` at `place`."""
