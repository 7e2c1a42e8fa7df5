"""The methods and policies that a configuration can name, each turned into its value here."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from compress import (
    LAST,
    AbstractJointPolicy,
    AbstractMethod,
    AcrossLayers,
    GlobalBudget,
    H2Optimal,
    ImpulseEnergy,
    RandomValues,
    ShallowFirst,
    SmallestValues,
    Tolerance,
    WhiteNoise,
)

MakeMethod = Callable[[Any, int], AbstractMethod]
"""From a `CompressionConfig` and the seed of a shrink to the method."""


def _complex(config: Any, seed: int) -> AbstractMethod:
    if config.keep == "random":
        return RandomValues(seed)
    return SmallestValues() if config.keep == "smallest" else WhiteNoise("complex")


METHODS: Mapping[str, MakeMethod | None] = {
    "data": None,
    "real": lambda config, seed: WhiteNoise("real"),
    "paper": _complex,
    "optimal": lambda config, seed: H2Optimal(),
    "last": lambda config, seed: LAST(),
    "impulse": lambda config, seed: ImpulseEnergy(),
    "shallow": lambda config, seed: H2Optimal(),
}
"""By the name in `compression.method`; None if calibration data must be recorded first."""

BUDGETS: Mapping[str, Callable[[int], AbstractJointPolicy]] = {
    "last": AcrossLayers,
    "impulse": AcrossLayers,
    "shallow": ShallowFirst,
}
"""Policies for a total number of states in mode `budget`, by the method's name."""


def budget_policy(config: Any, states: int) -> AbstractJointPolicy:
    """The policy of a `CompressionConfig` in mode `budget` for so many states in all layers."""
    return BUDGETS.get(config.method, GlobalBudget)(states).gated(1.0)


POLICIES: Mapping[str, Callable[[Any], AbstractJointPolicy]] = {
    "tolerance": lambda config: (
        Tolerance(config.tolerance).rounded(config.multiple).gated(config.gate)
    ),
}
"""By the name in `compression.mode`, those that one setting makes; the other modes of
`CompressionConfig` follow a schedule (`training.shrinking.shrinker`)."""


def configured_method(config: Any, seed: int, step: int) -> AbstractMethod | None:
    """The method of a `CompressionConfig`, None for what is weighed on calibration data.

    `seed` is the run's; `step` tells one shrink's random choice of states from another's.
    """
    make = METHODS[config.method]
    if make is None:
        return None
    return make(config, int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
