"""The search of the automatic mode: the fewest states within a rise of the loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import AbstractJointPolicy, Cut, Sigmas
from .ranks import TINY, check_sigma, most_valuable

NEGLIGIBLE = 1e-2
"""A search without a guess begins with the states above this share of the largest value."""

MORE = 1.25
"""By how much the states change from trial to trial near the guess, and where more data do not
confirm a cut."""

TRAINED = 4.0
"""How many times further the loss on training data may rise than that on held-back data."""

SLIGHT = 1e-2
"""A rise below this share of the limit says no more than that a trial fits."""


@dataclass(frozen=True)
class Decided(AbstractJointPolicy):
    """The result of `decide` for the fewest states with which `loss` rises by at most `rise`. With
    `enough(ranks)`, no more states are dropped than needed to make it true. `decide` maps the
    needed states to the ranks of the layers, or to None for no cut.

    The states of largest value stay, compared over all layers with `across`, where values are in
    one unit, as those that are weighed by gradients are; otherwise as shares of the layer's
    largest. Every trial costs a cut and an evaluation, so the search is one for their total number:

    - first `guess`; while that fails, more, up to the share `most`; if that fails too, no cut is
      worth it, and all states are needed;
    - then fewer, until a trial fails;
    - then between the two, until no more than the share `close` of the kept states could be gained.

    Losses rise about exponentially as states go. So what could be gained, and the next trial, come
    from a line through the logarithms of two rises. The next trial is in the middle instead if two
    trials in a row end alike, or if a rise is not finite.

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
        now = float(self.loss(cut(sizes))) if self.now is None else self.now
        tried: dict[tuple[int, ...], float] = {tuple(sizes): 0.0}

        def rise(total: int) -> float:
            ranks = tuple(most_valuable(worth, total))
            if ranks not in tried:
                tried[ranks] = float(self.loss(cut(ranks))) - now
            return tried[ranks]

        least, most = len(sizes), math.floor(self.most * sum(sizes))
        guess = self.guess
        if guess is None:
            guess = sum(int(np.sum(of_layer > NEGLIGIBLE)) for of_layer in worth)
        line = _Line(self.rise, self.close, least, most)
        at = min(max(guess, least), most)
        while not line.is_done:
            line.add(at, rise(at))
            if line.fails == most:
                return sizes
            at = line.next()
        return most_valuable(worth, line.fits) if line.fits <= most else sizes

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


def on_training_too(
    held_back: Callable[..., Any], training: Callable[..., Any], model: Any, now: float
) -> Callable[..., float]:
    """The loss `held_back`, which is `now` for `model`, or what a rise of the loss `training`
    amounts to, if that is more.

    A cut can improve an overfitted model by held-back data, and still change what it has learned;
    data of a later time may notice. So the loss on training data may rise, but only `TRAINED` times
    as far.
    """
    before = float(training(model))

    def loss(smaller: Any) -> float:
        rise = float(training(smaller)) - before
        return max(float(held_back(smaller)), now + rise / TRAINED)

    return loss


class _Line:
    """The trials of a search, and where between them the rise is the `limit`."""

    def __init__(self, limit: float, close: float, least: int, most: int):
        self.fails, self.fits = least - 1, most + 1
        """The most states that have failed, and the fewest that fit."""
        self._limit, self._close = limit, close
        self._least, self._most = least, most
        self._logs: dict[int, float] = {}
        self._factor, self._fit, self._turned = MORE, False, False

    def add(self, total: int, rise: float) -> None:
        """A trial with so many states."""
        scaled = rise / self._limit if math.isfinite(rise) else math.inf
        self._logs[total] = math.log(max(scaled, SLIGHT))
        fits = scaled <= 1
        self._turned, self._fit = fits != self._fit, fits
        if fits:
            self.fits = total
        else:
            self.fails = total

    @property
    def is_done(self) -> bool:
        """Whether no more than the share `close` of the states could be gained."""
        if self.fits > self._most:
            return self.fails >= self._most
        if self.fails < self._least:
            return self.fits <= self._least
        return self.fits - self._crossing() <= max(1, self._close * self.fits)

    def next(self) -> int:
        """The next number of states to try."""
        if self.fits > self._most:
            # far off, the rise is about one over the square of the states
            at = self.fails * min(max(self._faster(), math.exp(self._logs[self.fails] / 2)), 4.0)
        elif self.fails < self._least:
            at = self.fits / self._faster()
        elif self._turned and self._crossing() > self.fails:
            at = self._crossing() + self._close * self.fits / 2
        else:
            at = math.sqrt(self.fits * self.fails)
        return min(max(round(at), self.fails + 1), self.fits - 1)

    def _faster(self) -> float:
        """The factor for this trial; that for the next one is its square."""
        factor, self._factor = self._factor, min(self._factor**2, 4.0)
        return factor

    def _crossing(self) -> float:
        """Where the rise is the limit, between a trial that fails and one that fits; the former if
        its rise is not finite."""
        high, low = self._logs[self.fails], self._logs[self.fits]
        if not math.isfinite(high):
            return self.fails
        return self.fails + (self.fits - self.fails) * high / (high - low)
