"""The model of a run, its size and its layers."""

from typing import Any

import equinox as eqx
import jax

from compress.layers import layers_of as keyed_layers
from compress.layers import path_name
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
        classes=task.outputs,
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
    return [layer for _, layer in keyed_layers(model)]


def layer_sizes(model: Any) -> list[int]:
    """`d_state` of every state-space layer, in order."""
    return [layer.d_state for layer in layers_of(model)]


def layer_paths(model: Any) -> list[str]:
    """Where every state-space layer is in the model: `blocks[0].ssm`."""
    return [path_name(keys) for keys, _ in keyed_layers(model)]
