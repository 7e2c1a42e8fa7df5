"""The rules of a configuration: whether and how far layers are cut."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from compress import (
    AbstractJointPolicy,
    AbstractMethod,
    AbstractPolicy,
    AbstractSpectrum,
    Fraction,
    Plan,
    Rank,
    Ranks,
)
from compress.policies.looks import Memory
from data.task import Split

from ..model.network import layer_sizes
from ..settings.config import RunConfig
from ..settings.methods import POLICIES, budget_policy
from ..settings.schedule import rank_at, shrink_steps
from .automatic import Automatic
from .reduction import Reduction, watched_split

TINY = 1e-300
"""Replaces the sum of HSVs that are all zero."""


class Shrinker:
    """Plans the shrinks of a run. `memory` is its whole state."""

    def __init__(
        self,
        config: RunConfig[Any, Any],
        calibration: Split,
        initial: Any,
        method: AbstractMethod | None = None,
        policy: AbstractPolicy | None = None,
        automatic: Automatic | None = None,
    ):
        """`initial` are the model's arrays at its start, of which only shapes are kept.

        `method` and `policy`, if given, replace the configured ones; the policy applies at each
        shrink in mode `tolerance`. `automatic` decides in mode `auto`.
        """
        self.automatic = automatic
        self.config = config.compression
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), initial)
        self.reduction = Reduction(config, calibration, shapes, method)
        some = watched_split(calibration, max(layer_sizes(initial)))
        self._watching = Reduction(config, some, shapes, method)
        self.steps = shrink_steps(config.compression, config.steps)
        self._initial = layer_sizes(initial)
        self._own_policy = policy
        self._demanded: list[float] | None = None

    @property
    def memory(self) -> Any:
        """The demands of the layers at the shrink before, for `settled`. In mode `auto`, the memory
        of the looks.
        """
        return self._demanded if self.automatic is None else self.automatic.memory.plain()

    def recall(self, memory: Any) -> None:
        """Go on with the `memory` of an earlier run."""
        if self.automatic is None:
            self._demanded = memory
        else:
            self.automatic.memory = Memory.of(memory)

    def take_back(self) -> None:
        """Remember that the cut after the present state has been taken back."""
        if self.automatic is not None:
            self.automatic.take_back()

    def remember(self, planned: Plan) -> None:
        """Store the demands at a shrink. After a cut, the spectrum has to settle again."""
        cut = any(layer.cut is not None for layer in planned.layers)
        looks = self.config.settled is not None and not cut
        self._demanded = [self._demand(row.sigma) for row in planned.layers] if looks else None

    def must_cut(self, step: int) -> bool:
        """Whether the cut after `step` is made at any cost."""
        adaptive = self.config.mode == "fixed" and self.config.settled is not None
        return adaptive and step == self.steps[-1]

    def spectra(self, model: Any, norm_state: eqx.nn.State) -> Plan:
        """The HSVs of every layer by `watched_split`, in a plan that cuts nothing."""
        return self._watching.plan(model, norm_state, Ranks(layer_sizes(model)))

    def plan(
        self,
        model: Any,
        norm_state: eqx.nn.State,
        step: int,
        policy: AbstractPolicy | None = None,
    ) -> Plan:
        """The plan after `step`, by `policy` or as configured.

        ValueError for a model without HSVs.
        """
        policy = policy or self._policy(model, step)
        return self.reduction.plan(model, norm_state, policy, step)

    def _policy(self, model: Any, step: int) -> AbstractPolicy:
        mode, settled = self.config.mode, self.config.settled is not None
        if mode in POLICIES:
            policy = self._own_policy or POLICIES[mode](self.config)
            return self._when_settled(policy) if settled else policy
        if mode == "fixed" and settled:
            final = Rank(self.config.rank or 1)
            return final if self.must_cut(step) else self._when_settled(final)
        if mode == "auto":  # for the rehearsal; the looks bring their own
            return Fraction(0.5)
        if mode == "budget":
            return budget_policy(self.config, sum(self._ranks(model, step)))
        return Ranks(self._ranks(model, step))

    def _ranks(self, model: Any, step: int) -> list[int]:
        sizes = layer_sizes(model)
        if self.config.mode == "pragmatic":
            kept = 1 - self.config.share
            return [max(1, math.floor(kept * size + 1e-9)) for size in sizes]
        number = self.steps.index(step) + 1
        wanted = [rank_at(self.config, number, len(self.steps), n) for n in self._initial]
        if self.config.mode == "budget":
            return wanted
        return [min(now, rank) for now, rank in zip(sizes, wanted, strict=True)]

    def _demand(self, sigma: Sequence[float] | np.ndarray) -> float:
        """The demand that `settled` compares: states, or the share of the HSVs beyond the final
        rank."""
        sigma = np.asarray(sigma)
        if self.config.mode == "fixed":
            return float(np.sum(sigma[self.config.rank or 1 :]) / max(np.sum(sigma), TINY))
        policy = POLICIES[self.config.mode](self.config)
        (rank,) = policy.choose([sigma], lambda _: None)
        return float(policy.round_up(int(rank), len(sigma)))

    def _when_settled(self, policy: AbstractPolicy) -> AbstractPolicy:
        """`policy` once the demands of all layers have settled, otherwise no cut."""
        if not isinstance(policy, AbstractJointPolicy):
            raise ValueError(
                "`compression.settled` must be None with this policy, got "
                f"{self.config.settled} with {policy!r}"
            )
        return WhenSettled(policy, self._demand, self._demanded, self.config.settled or 0.0)


@dataclass(frozen=True)
class WhenSettled(AbstractPolicy):
    """`policy` if the demand of every layer has settled, otherwise no cut."""

    policy: AbstractJointPolicy
    demand: Callable[[Any], float]
    """The demand as a function of a layer's values."""
    before: Sequence[float] | None
    """The demands at the shrink before; None if there was none."""
    most: float
    """The largest relative change that passes."""

    def ranks(
        self, spectra: Mapping[str, AbstractSpectrum], cut: Callable[[Sequence[int]], Any]
    ) -> list[int]:
        now = [self.demand(spectrum.sigma) for spectrum in spectra.values()]
        settled = self.before is not None and all(
            abs(new - old) <= self.most * old for new, old in zip(now, self.before, strict=True)
        )
        if settled:
            return self.policy.ranks(spectra, cut)
        return [spectrum.layer.d_state for spectrum in spectra.values()]
