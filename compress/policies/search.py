"""The search of the automatic mode: the fewest states within a rise of the loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .base import AbstractJointPolicy, Cut, Sigmas
from .joint import LossBudget
from .ranks import TINY, check_sigma


@dataclass(frozen=True)
class Above(AbstractJointPolicy):
    """The states whose values are above this share of the largest one, at least one in each layer.

    With `across`, the largest of all layers, where their values are in one unit, as those that are
    weighed by gradients are; else the layer's own.
    """

    share: float | int
    across: bool = True

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[int]:
        values = [check_sigma(sigma) for sigma in sigmas]
        largest = max(float(sigma[0]) for sigma in values)
        return [
            max(1, int(np.sum(x > self.share * max(largest if self.across else x[0], TINY))))
            for x in values
        ]


@dataclass(frozen=True)
class Decided(AbstractJointPolicy):
    """The result of `decide` for the fewest states with which `loss` rises by at most `rise`. With
    `enough(ranks)`, no more states are dropped than needed to make it true. `decide` maps the
    needed states to the ranks of the layers, or to None for no cut.

    Of many tried cuts the smallest is also the luckiest. So with `confirm`, a loss on more data,
    the states increase by steps of `MORE` until that rises by at most `rise` too.
    """

    loss: Callable[..., float]
    rise: float
    decide: Callable[[Sequence[int]], Sequence[int] | None]
    across: bool = True
    enough: Callable[[Sequence[int]], bool] | None = None
    steps: int = 8
    close: float = 0.0
    """As in `LossBudget`."""
    confirm: Callable[..., float] | None = None

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[int]:
        sizes = [len(sigma) for sigma in sigmas]

        def along(share: float) -> AbstractJointPolicy:
            return Above(share, self.across)

        search = LossBudget(self.loss, self.rise, along, self.steps, self.close)
        found = list(search.choose(sigmas, cut))
        if self.confirm is not None and found != sizes:
            found = self._confirmed(found, sizes, cut)
        if self.enough is not None:
            found = self._just_enough(found, sigmas, cut)
        kept = self.decide(found)
        return sizes if kept is None else list(kept)

    def _confirmed(self, found: list[int], sizes: list[int], cut: Cut) -> list[int]:
        """`found`, or the least of its multiples that `confirm` accepts, at most `sizes`."""
        assert self.confirm is not None
        limit = self.confirm(cut(sizes)) + self.rise
        while found != sizes and not self.confirm(cut(found)) <= limit:
            pairs = zip(found, sizes, strict=True)
            found = [min(size, max(rank + 1, round(MORE * rank))) for rank, size in pairs]
        return found

    def _just_enough(self, fewest: list[int], sigmas: Sigmas, cut: Cut) -> list[int]:
        """The most states, `fewest` or more in each layer, that are few enough."""
        assert self.enough is not None
        best, low, high = fewest, np.log(1e-4), 0.0
        if not self.enough(fewest):
            return fewest
        for _ in range(2 * self.steps):
            middle = (low + high) / 2
            chosen = Above(float(np.exp(middle)), self.across).choose(sigmas, cut)
            trial = [max(pair) for pair in zip(chosen, fewest, strict=True)]
            if self.enough(trial):
                best, high = trial, middle
            else:
                low = middle
        return best


MORE = 1.25
"""By how much the states increase where more data do not confirm a cut."""
