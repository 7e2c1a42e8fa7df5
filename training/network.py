"""The model of a run, its size and its layers."""

from typing import Any

import equinox as eqx
import jax

from data.task import Task
from zoo import AbstractSSM, classifier

from .config import RunConfig


def build_model(config: RunConfig, task: Task) -> tuple[Any, eqx.nn.State]:
    """The model that `config` describes for `task`, at its start, and its BatchNorm state."""
    network = config.network
    return classifier(
        lambda key: config.layer.build(network.d_model, key=key),
        input_kind=task.input_kind,
        input_size=task.input_size,
        classes=task.classes,
        d_model=network.d_model,
        blocks=network.blocks,
        norm=network.norm,
        dropout=network.dropout,
        bidirectional=network.bidirectional,
        key=jax.random.fold_in(jax.random.key(config.seed), 0),
    )


def parameter_count(params: Any) -> int:
    """Number of trained real numbers."""
    return sum(x.size for x in jax.tree.leaves(eqx.filter(params, eqx.is_inexact_array)))


def layers_of(model: Any) -> list[AbstractSSM]:
    """The state-space layers of a model, in order."""
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, AbstractSSM))
    return [node for node in nodes if isinstance(node, AbstractSSM)]


def layer_sizes(model: Any) -> list[int]:
    """`d_state` of every state-space layer, in order."""
    return [layer.d_state for layer in layers_of(model)]
