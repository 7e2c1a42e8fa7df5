"""Policies that look at all layers at once."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import PyTree

from ..plans import AbstractSpectrum
from .base import (
    AbstractJointPolicy,
    AbstractLayerPolicy,
    AbstractPolicy,
    Cut,
    Sigmas,
    as_number,
    as_rank,
    check_count,
    check_function,
)
from .layer import Tolerance
from .ranks import TINY, check_sigma, most_valuable


@dataclass(frozen=True)
class Alike(AbstractJointPolicy):
    """The largest of the policy's ranks for all layers, as file formats with one size need it."""

    policy: AbstractLayerPolicy

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[int]:
        rank = max(self.policy.round_up(as_rank(r), r) for r in self.policy.choose(sigmas, cut))
        return [min(rank, len(sigma)) for sigma in sigmas]


@dataclass(frozen=True)
class GlobalBudget(AbstractJointPolicy):
    """A total number of states, distributed where they matter most, with at least one for each
    layer.

    The value of a state is its share of its layer's sum(sigma), so layers of large gain have no
    advantage. ValueError for a budget below 1, and when used, for one below the number of layers.
    """

    states: int

    def _check(self) -> None:
        check_count("states", self.states)

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[int]:
        if self.states < len(sigmas):
            raise ValueError(
                f"`states` must be {len(sigmas)}, the number of layers, or more, got {self.states}"
            )
        worth = [check_sigma(sigma) / max(float(np.sum(sigma)), TINY) for sigma in sigmas]
        return most_valuable(worth, self.states)


@dataclass(frozen=True)
class LossBudget(AbstractJointPolicy):
    """The largest cut after which `loss(model)` is at most `rise` above what it is now.

    `along(tau)` gives the policies that are tried, of tau between 1e-4 and 1, by bisection of
    log(tau) in `steps` steps. They end early once a cut has failed that drops no more than the
    share `close` of the kept states in addition. The loss is assumed to rise with tau. Every trial
    is a model of other shapes, so a jitted loss compiles anew. ValueError if `rise` is below zero
    or not finite, and for a `close` that is not at least 0 and below 1.
    """

    loss: Callable[[PyTree], float]
    rise: float | int
    along: Callable[[float], AbstractJointPolicy] = Tolerance
    steps: int = 8
    close: float | int = 0.0

    def _check(self) -> None:
        if not 0 <= as_number(self.rise) < math.inf:
            raise ValueError(f"`rise` must be 0 or more and finite, got {self.rise}")
        if not 0 <= as_number(self.close) < 1:
            raise ValueError(f"`close` must be at least 0 and below 1, got {self.close}")
        check_count("steps", self.steps)

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[int]:
        best = [len(sigma) for sigma in sigmas]
        limit = float(self.loss(cut(best))) + self.rise
        tried = {tuple(best): True}
        low, high, failed = math.log(1e-4), 0.0, 0
        for _ in range(self.steps):
            if failed and sum(best) - failed <= self.close * sum(best):
                break
            middle = (low + high) / 2
            trial = [as_rank(r) for r in self.along(math.exp(middle)).choose(sigmas, cut)]
            if tuple(trial) not in tried:
                tried[tuple(trial)] = float(self.loss(cut(trial))) <= limit
            if tried[tuple(trial)]:
                low, best = middle, trial
            else:
                high, failed = middle, sum(trial)
        return best


@dataclass(frozen=True)
class Jointly(AbstractJointPolicy):
    """A function of your own, `function(sigmas, cut)`, as `AbstractJointPolicy.choose`."""

    function: Callable[[Sigmas, Cut], Sequence[Any]]

    def _check(self) -> None:
        check_function("function", self.function)

    def choose(self, sigmas: Sigmas, cut: Cut) -> Sequence[Any]:
        return self.function(sigmas, cut)


@dataclass(frozen=True)
class Ranks(AbstractPolicy):
    """The rank of each layer, taken as it is: a list in the order of the layers, or a mapping.

    A mapping has paths as its keys; layers that it does not name stay unchanged. One number applies
    to all layers. ValueError, when used, for a rank outside 1 to d_state, and for layers that do
    not fit.
    """

    states: SupportsIndex | Sequence[SupportsIndex] | Mapping[str, SupportsIndex]

    def ranks(self, spectra: Mapping[str, AbstractSpectrum], cut: Cut) -> list[int]:
        wanted = {path: as_rank(rank, "ranks") for path, rank in self._by_path(spectra).items()}
        for path, rank in wanted.items():
            n = spectra[path].layer.d_state
            if not 1 <= rank <= n:
                where = f" for {path}" if path else ""
                raise ValueError(f"`ranks`{where} must be 1 to {n}, its d_state, got {rank}")
        return [
            wanted[path] if path in wanted else int(spectrum.layer.d_state)
            for path, spectrum in spectra.items()
        ]

    def _by_path(self, paths: Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(self.states, Mapping):
            unknown = [path for path in self.states if path not in paths]
            if unknown:
                known = ", ".join(path or "(model)" for path in paths)
                raise ValueError(f"`ranks` must name layers ({known}), got {unknown[0]!r}")
            return self.states
        if isinstance(self.states, Sequence):
            if len(self.states) != len(paths):
                raise ValueError(
                    f"`ranks` must have {len(paths)} entries, one for each layer, got "
                    f"{len(self.states)}"
                )
            return dict(zip(paths, self.states, strict=True))
        return dict.fromkeys(paths, self.states)
