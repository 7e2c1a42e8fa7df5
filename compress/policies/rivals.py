"""Policies of other methods, to compare with: one order for all layers, shallow layers first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .base import AbstractJointPolicy, Cut, Sigmas, check_count
from .ranks import check_sigma


@dataclass(frozen=True)
class AcrossLayers(AbstractJointPolicy):
    """A total number of states, those with the largest values in all layers, with at least one for
    each layer. It needs values that are comparable between layers, such as those of `LAST`.
    ValueError for a number below 1, and when used, for one below the number of layers.
    """

    states: int

    def _check(self) -> None:
        check_count("states", self.states)

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[int]:
        _check_enough(self.states, sigmas)
        values = [check_sigma(sigma) for sigma in sigmas]
        first = np.concatenate([np.arange(len(x)) == 0 for x in values])
        layer = np.concatenate([np.full(len(x), k) for k, x in enumerate(values)])
        order = np.lexsort((-np.concatenate(values), ~first))[: self.states]
        return np.bincount(layer[order], minlength=len(values)).tolist()


@dataclass(frozen=True)
class ShallowFirst(AbstractJointPolicy):
    """A total number of states: layers are cut to `rank` from the first one on, until the total is
    reached. The last of them keeps the remaining states. Source: the order of arXiv 2510.14542,
    with `H2Optimal`. ValueError for numbers below 1, and when used, for a total below the number of
    layers, or one that `rank` for every layer is above.
    """

    states: int
    rank: int = 1

    def _check(self) -> None:
        check_count("states", self.states)
        check_count("rank", self.rank)

    def choose(self, sigmas: Sigmas, cut: Cut) -> Sequence[int]:
        _check_enough(self.states, sigmas)
        ranks = [len(sigma) for sigma in sigmas]
        for k, size in enumerate(ranks):
            over = sum(ranks) - self.states
            if over <= 0:
                break
            ranks[k] = max(min(self.rank, size), size - over)
        if sum(ranks) > self.states:
            raise ValueError(
                f"`rank` must be small enough for {self.states} states in {len(ranks)} layers, got "
                f"{self.rank}"
            )
        return ranks


def _check_enough(states: int, sigmas: Sigmas) -> None:
    if states < len(sigmas):
        raise ValueError(
            f"`states` must be {len(sigmas)}, the number of layers, or more, got {states}"
        )
