"""Policies that look at one layer at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .base import (
    AbstractLayerPolicy,
    Sigma,
    as_number,
    as_rank,
    check_count,
    check_function,
    check_share,
)
from .ranks import EPS, TINY, check_sigma, smallest_rank, tails


@dataclass(frozen=True)
class Tolerance(AbstractLayerPolicy):
    """The smallest r with sum(sigma[:r]) >= (1 - tau) * sum(sigma) (CompreSSM, section 3).

    ValueError for `tau` outside [0, 1). `tau` = 0 keeps every sigma above zero.
    """

    tau: float | int = 0.01

    def _check(self) -> None:
        check_share("tolerance", self.tau)

    def allowed(self, sigma: Sigma) -> float:
        return float(self.tau * tails(sigma)[0])

    def rank(self, sigma: Sigma) -> int:
        return smallest_rank(check_sigma(sigma), self.allowed(sigma))


@dataclass(frozen=True)
class Energy(AbstractLayerPolicy):
    """`Tolerance` on squares: the smallest r with sum(sigma[:r]^2) >= (1 - tau) * sum(sigma^2)."""

    tau: float | int

    def _check(self) -> None:
        check_share("energy", self.tau)

    def rank(self, sigma: Sigma) -> int:
        sigma = check_sigma(sigma)
        squares = np.square(sigma / max(sigma[0], TINY))
        return smallest_rank(squares, float(self.tau * tails(squares)[0]))


@dataclass(frozen=True)
class ErrorBudget(AbstractLayerPolicy):
    """The smallest r whose error bound 2 * sum(sigma[r:]) is at most `epsilon` * sigma[0].

    ValueError for `epsilon` below zero, or not finite.
    """

    epsilon: float | int

    def _check(self) -> None:
        if not 0 <= as_number(self.epsilon) < math.inf:
            raise ValueError(f"`epsilon` must be 0 or more and finite, got {self.epsilon}")

    def allowed(self, sigma: Sigma) -> float:
        return float(self.epsilon * sigma[0] / 2)

    def rank(self, sigma: Sigma) -> int:
        return smallest_rank(check_sigma(sigma), self.allowed(sigma))


@dataclass(frozen=True)
class Rank(AbstractLayerPolicy):
    """The same number of states in each layer, or n if a layer has fewer. Every cut is made, also
    in a tie.

    ValueError for a rank below 1.
    """

    states: int
    gate: float | int = field(default=1.0, kw_only=True)

    keeps_ties: ClassVar[bool] = False

    def _check(self) -> None:
        check_count("rank", self.states)

    def rank(self, sigma: Sigma) -> int:
        return min(self.states, len(sigma))


@dataclass(frozen=True)
class Fraction(AbstractLayerPolicy):
    """This share of the layer's states, rounded up. ValueError for a share outside (0, 1]."""

    share: float | int

    def _check(self) -> None:
        if not 0 < as_number(self.share) <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1, got {self.share}")

    def rank(self, sigma: Sigma) -> int:
        n = len(sigma)
        return max(1, math.ceil(self.share * n - n * EPS))


@dataclass(frozen=True)
class PerLayer(AbstractLayerPolicy):
    """A function of your own, from the descending values of a layer to its rank."""

    function: Callable[[Sigma], Any]

    def _check(self) -> None:
        check_function("function", self.function)

    def rank(self, sigma: Sigma) -> Any:
        return self.function(sigma)


@dataclass(frozen=True)
class _OfSeveral(AbstractLayerPolicy):
    policies: tuple[AbstractLayerPolicy, ...]

    def _check(self) -> None:
        several = isinstance(self.policies, tuple | list) and len(self.policies)
        if not several or not all(isinstance(p, AbstractLayerPolicy) for p in self.policies):
            raise ValueError(f"`policies` must hold one policy or more, got {self.policies!r}")

    def each(self, sigma: Sigma) -> list[int]:
        """The policies' ranks, each rounded by its policy."""
        n = len(sigma)
        return [policy.round_up(as_rank(policy.rank(sigma)), n) for policy in self.policies]


@dataclass(frozen=True)
class Smallest(_OfSeveral):
    """The smallest of the policies' ranks."""

    def rank(self, sigma: Sigma) -> int:
        return min(self.each(sigma))


@dataclass(frozen=True)
class Largest(_OfSeveral):
    """The largest of the policies' ranks."""

    def rank(self, sigma: Sigma) -> int:
        return max(self.each(sigma))
