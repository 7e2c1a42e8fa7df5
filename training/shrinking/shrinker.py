"""How far the layers of a run are cut, and whether at all: the rules of its configuration."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from compress import Plan
from compress import policies as rank
from compress.policies import JointPolicy, Policy
from data.task import Split

from ..model.network import layer_sizes
from ..settings.config import RunConfig
from ..settings.schedule import rank_at, shrink_steps
from .reduction import Reduction

TINY = 1e-300
"""Stands for the sum of HSVs that are all zero."""


class Shrinker:
    """Plans the shrinks of a run. `memory` is all that it knows besides the configuration."""

    def __init__(self, config: RunConfig[Any, Any], calibration: Split, initial: Any):
        """`initial` are the model's arrays at its start, of which only shapes are kept."""
        self.config = config.compression
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), initial)
        self.reduction = Reduction(config, calibration, shapes)
        self.steps = shrink_steps(config.compression, config.steps)
        self._initial = layer_sizes(initial)
        self._asked: list[float] | None = None

    @property
    def memory(self) -> list[float] | None:
        """What the spectra asked for when they were last looked at, for `settled`."""
        return self._asked

    def recall(self, memory: list[float] | None) -> None:
        """Go on with the `memory` of an earlier run."""
        self._asked = memory

    def remember(self, planned: Plan) -> None:
        """Note what a shrink has found; after a cut, the spectrum has to settle anew."""
        cut = any(layer.cut is not None for layer in planned.layers)
        self._asked = None if cut else [self._asks(layer.sigma) for layer in planned.layers]

    def must_cut(self, step: int) -> bool:
        """Whether what is cut after `step` is cut whatever it costs."""
        adaptive = self.config.mode == "fixed" and self.config.settled is not None
        return adaptive and step == self.steps[-1]

    def spectra(self, model: Any, norm_state: eqx.nn.State) -> Plan:
        """The HSVs of every layer, in a plan that cuts nothing."""
        return self.reduction.plan(model, norm_state, ranks=layer_sizes(model))

    def plan(self, model: Any, norm_state: eqx.nn.State, step: int) -> Plan:
        """What is cut after `step`. ValueError for a model without HSVs."""
        if self.config.mode == "tolerance":
            policy, gate = self._policy(), self.config.gate
            if self.config.settled is not None:
                policy = self._when_settled(policy)
            return self.reduction.plan(model, norm_state, step=step, policy=policy, gate=gate)
        if self.config.mode == "fixed" and self.config.settled is not None:
            policy = self._final if self.must_cut(step) else self._when_settled(self._final)
            return self.reduction.plan(model, norm_state, step=step, policy=policy, gate=1.0)
        if self.config.mode == "budget":
            budget = rank.global_budget(sum(self._ranks(model, step)))
            return self.reduction.plan(model, norm_state, step=step, policy=budget, gate=1.0)
        return self.reduction.plan(model, norm_state, step=step, ranks=self._ranks(model, step))

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

    def _asks(self, sigma: Sequence[float] | np.ndarray) -> float:
        """What `settled` compares: states, or the share of the HSVs beyond the final rank."""
        if self.config.mode == "fixed":
            return float(np.sum(sigma[self._final(sigma) :]) / max(np.sum(sigma), TINY))
        return float(self._policy()(np.asarray(sigma)))

    def _final(self, sigma: Sequence[float] | np.ndarray) -> int:
        """The rank of mode `fixed` after the last shrink, for a layer with these HSVs."""
        return min(len(sigma), self.config.rank or 1)

    def _policy(self) -> Policy:
        return rank.round_up(rank.tolerance(self.config.tolerance), self.config.multiple)

    def _when_settled(self, policy: Policy) -> JointPolicy:
        """`policy` once all layers ask for about what they did at the last look, else no cut."""
        before, most = self._asked, self.config.settled or 0.0

        def ranks(sigmas: Sequence[Any], cut: Callable[[list[int]], Any]) -> list[int]:
            asked = [self._asks(sigma) for sigma in sigmas]
            settled = before is not None and all(
                abs(now - then) <= most * then for now, then in zip(asked, before, strict=True)
            )
            return [policy(sigma) if settled else len(sigma) for sigma in sigmas]

        return JointPolicy(ranks)
