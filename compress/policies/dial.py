"""The dial of the automatic mode."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dial:
    """The loss that a run may cost, and its goal: speed or the smallest model.

    ValueError for a loss that is not above 0 and below 1, a speed that is not above 1, and for both
    `smallest` and `speed`.
    """

    loss: float | int = 0.005
    """How much worse the end may be: a share of the loss, or points of accuracy."""
    smallest: bool = False
    """Whether to find the smallest model within the loss, at any cost of the search."""
    speed: float | int | None = None
    """By which factor a step's operations should decrease; None cuts whenever it is worth it."""

    def __post_init__(self):
        if not 0 < self.loss < 1:
            raise ValueError(f"`loss` must be above 0 and below 1, got {self.loss}")
        if self.speed is not None and not self.speed > 1:
            raise ValueError(f"`speed` must be above 1, or None, got {self.speed}")
        if self.smallest and self.speed is not None:
            raise ValueError(f"`speed` must be None with `smallest`, got {self.speed}")
