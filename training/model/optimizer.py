"""AdamW with two learning rates: one for the layers' dynamics, one for everything else."""

from typing import Any

import jax
import optax

from zoo import AbstractSSM

from ..settings.config import OptimizerConfig
from ..settings.schedule import learning_rate_schedule


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer of a run of `steps` steps.

    Eigenvalues, step sizes and B (each layer's `dynamics`) learn at `ssm_factor` times the rate and
    have no weight decay, as in S5 and in the paper's own code.
    """
    return optax.multi_transform(
        {
            "dynamics": optax.adam(learning_rate_schedule(config, steps, config.ssm_factor)),
            "rest": optax.adamw(
                learning_rate_schedule(config, steps), weight_decay=config.weight_decay
            ),
        },
        parameter_labels,
    )


def parameter_labels(params: Any) -> Any:
    """A tree like `params` with the label "dynamics" or "rest" at each leaf."""

    def label(node: Any) -> Any:
        if not isinstance(node, AbstractSSM):
            return "rest"
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "dynamics" if path[0].name in node.dynamics else "rest", node
        )

    return jax.tree.map(label, params, is_leaf=lambda node: isinstance(node, AbstractSSM))
