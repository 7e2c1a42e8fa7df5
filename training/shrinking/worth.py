"""Whether programs for smaller layers are worth compiling.

The estimate counts operations, since a decision by measured time would make a run differ from its
repetition.
"""

import math
from typing import Any

import jax

from data.task import Task
from zoo.layers.base import shapes_at

from ..model.network import ssm_layers
from ..settings.config import RunConfig

OF_A_PROGRAM = {"cpu": 1e12}
"""About as many operations take as long as compiling the programs of a run, by the device."""
ON_ACCELERATORS = 1e14
"""The same for GPUs and other devices."""

PER_WEIGHT = 6.0
"""Operations for each weight and sample: a product and a sum, forward and twice backward."""


def steps_to_pay(config: RunConfig[Any, Any], task: Task, weights: int) -> float:
    """After how many training steps programs with so many `weights` less have saved the time that
    they take to compile; infinite for none."""
    samples = config.batch_size * task.splits["train"].inputs.shape[1]
    cost = OF_A_PROGRAM.get(jax.default_backend(), ON_ACCELERATORS)
    return cost / (PER_WEIGHT * samples * weights) if weights else math.inf


def weights_of_states(model: Any) -> int:
    """How many weights `model` would have less if each of its layers had one state."""
    return sum(
        math.prod(x.shape) - math.prod(of_one)
        for layer in ssm_layers(model)
        for x, of_one in zip(jax.tree.leaves(layer), shapes_at(layer, 1), strict=True)
    )
