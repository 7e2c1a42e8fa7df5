"""The search of the automatic mode: the fewest states within a rise of the loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .base import AbstractJointPolicy, Cut, Sigmas
from .ranks import TINY, check_sigma, most_valuable

NEGLIGIBLE = 1e-2
"""A search without a guess begins with the states above this share of the largest value."""

MORE = 1.25
"""By how much the states change from trial to trial near the guess, and where more data do not
confirm a cut."""


@dataclass(frozen=True)
class Decided(AbstractJointPolicy):
    """The result of `decide` for the fewest states with which `loss` rises by at most `rise`. With
    `enough(ranks)`, no more states are dropped than needed to make it true. `decide` maps the
    needed states to the ranks of the layers, or to None for no cut.

    The states of largest value stay, compared over all layers with `across`, where values are in
    one unit, as those that are weighed by gradients are; otherwise as shares of the layer's
    largest. Every trial costs a cut and an evaluation, so the search is one for their total number:

    - first `guess`; while that fails, twice as many, up to the share `most`; if that fails too, no
      cut is worth it, and all states are needed;
    - then fewer, in growing steps, until a trial fails;
    - then bisection, until a trial has failed that drops no more than the share `close` of the kept
      states in addition.

    Of many tried cuts the smallest is also the luckiest. So with `confirm`, a loss on more data,
    the states increase by steps of `MORE` until that rises by at most `rise` too.
    """

    loss: Callable[..., float]
    rise: float
    decide: Callable[[Sequence[int]], Sequence[int] | None]
    across: bool = True
    enough: Callable[[Sequence[int]], bool] | None = None
    close: float = 0.0
    most: float = 1.0
    now: float | None = None
    """The loss of the model as it is; None measures it."""
    guess: int | None = None
    """About how many states will do in all layers together."""
    confirm: Callable[..., float] | None = None

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[int]:
        sizes = [len(sigma) for sigma in sigmas]
        values = [check_sigma(sigma) for sigma in sigmas]
        largest = max(float(sigma[0]) for sigma in values)
        worth = [sigma / max(largest if self.across else sigma[0], TINY) for sigma in values]
        found = self._fewest(worth, sizes, cut)
        if self.confirm is not None and found != sizes:
            found = self._confirmed(found, sizes, cut)
        if self.enough is not None:
            found = self._just_enough(found, worth)
        kept = self.decide(found)
        return sizes if kept is None else list(kept)

    def _fewest(self, worth: Sigmas, sizes: list[int], cut: Cut) -> list[int]:
        limit = self.rise + (float(self.loss(cut(sizes))) if self.now is None else self.now)
        tried = {tuple(sizes): True}

        def holds(total: int) -> bool:
            ranks = most_valuable(worth, total)
            if tuple(ranks) not in tried:
                tried[tuple(ranks)] = float(self.loss(cut(ranks))) <= limit
            return tried[tuple(ranks)]

        least, most = len(sizes), math.floor(self.most * sum(sizes))
        at, factor = self.guess, MORE
        if at is None:
            at = sum(int(np.sum(of_layer > NEGLIGIBLE)) for of_layer in worth)
        fits, fails = most + 1, least - 1
        while fits - fails > max(1, self.close * fits) or most < fits > least:
            at = min(max(round(at), fails + 1), fits - 1)
            if holds(at):
                fits = at
            elif at == most:
                return sizes
            else:
                fails = at
            if fits > most:
                at = min(2 * fails, most)
            elif fails < least:
                at, factor = fits / factor, min(factor * factor, 4.0)
            else:
                at = math.sqrt(fits * fails)
        return most_valuable(worth, fits) if fits <= most else sizes

    def _confirmed(self, found: list[int], sizes: list[int], cut: Cut) -> list[int]:
        """`found`, or the least of its multiples that `confirm` accepts, at most `sizes`."""
        assert self.confirm is not None
        limit = self.confirm(cut(sizes)) + self.rise
        while found != sizes and not self.confirm(cut(found)) <= limit:
            pairs = zip(found, sizes, strict=True)
            found = [min(size, max(rank + 1, round(MORE * rank))) for rank, size in pairs]
        return found

    def _just_enough(self, fewest: list[int], worth: Sigmas) -> list[int]:
        """The most states, `fewest` or more in each layer, that are few enough."""
        assert self.enough is not None
        if not self.enough(fewest):
            return fewest

        def at_least(total: int) -> list[int]:
            pairs = zip(most_valuable(worth, total), fewest, strict=True)
            return [max(pair) for pair in pairs]

        best, low, high = fewest, len(fewest), 1 + sum(len(of_layer) for of_layer in worth)
        while high - low > 1:
            middle = (low + high) // 2
            trial = at_least(middle)
            if self.enough(trial):
                best, low = trial, middle
            else:
                high = middle
        return best
