"""The model of a run, its size and its layers."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from compress import AbstractLinearMethod, AbstractMethod, family_of
from compress.model.layers import layers_of as keyed_layers
from compress.model.layers import path_name
from data.task import Kind, Task
from zoo import (
    AbstractSSM,
    classifier,
    language_model,
    pair_classifier,
    regressor,
)
from zoo.network.block import BlockSettings

from ..settings.config import NetworkConfig, RunConfig
from ..settings.errors import require
from .needs import check_memory, check_parameters


def build_model(config: RunConfig, task: Task) -> tuple[Any, eqx.nn.State]:
    """The model that `config` describes for `task`, at its start, and its BatchNorm state."""
    network = config.network
    settings: dict[str, Any] = {
        "d_model": network.d_model,
        "blocks": network.blocks,
        **{name: getattr(network, name) for name in OF_BLOCKS},
        "key": jax.random.fold_in(jax.random.key(config.seed), 0),
    }
    return _BUILDERS[task.kind](
        lambda key: config.layer.build(network.d_model, key=key),
        **settings,
        **_task_settings(task, network),
    )


def check_model(config: RunConfig, task: Task, method: AbstractMethod | None = None) -> None:
    """ValueError if the model does not fit the task, or cannot learn or shrink as configured.
    `method`, if given, replaces the configured one. The memory estimate is checked before the model
    is made.
    """
    check_network(config.network, task)
    check_memory(config, task)
    model, _ = eqx.filter_eval_shape(lambda: build_model(config, task))
    check_parameters(parameter_count(model))
    if task.targets is not None:
        causal = all(layer.is_causal for layer in ssm_layers(model))
        require(
            causal, "layer", type(config.layer).__name__, "a layer in one direction for a forecast"
        )
    needs_data = any(family_of(layer).needs_data for layer in ssm_layers(model))
    if needs_data or getattr(config.layer, "needs_data", False):
        weight = config.regularization.hankel
        layers = "for layers whose Hankel singular values depend on data"
        if method is None:
            name = config.compression.method
            require(name == "data", "compression.method", name, f"data {layers}")
        else:
            takes = not isinstance(method, AbstractLinearMethod)
            require(
                takes, "method", method, f"Data(...), or another method that reads data, {layers}"
            )
        require(weight == 0, "regularization.hankel", weight, f"0 {layers}")
    if any(family_of(layer).system is None for layer in ssm_layers(model)):
        kept, cannot = config.loop.keep_systems, "for layers that have no systems to keep"
        require(not kept, "loop.keep_systems", kept, f"False {cannot}")
    if not all(family_of(layer).is_one_system for layer in ssm_layers(model)):
        weight, many = config.regularization.hankel, "0 for layers with a system for each channel"
        require(weight == 0, "regularization.hankel", weight, many)
    if task.kind not in ("classification", "pair", "language", "recall"):
        teacher = config.distillation.teacher
        require(teacher is None, "distillation.teacher", teacher, "None for a task without classes")
    if config.compression.mode == "pragmatic" and task.splits["validation"] is task.splits["test"]:
        other = (
            "another mode if the test split is also the validation split (or set data.validation)"
        )
        require(False, "compression.mode", "pragmatic", other)


def check_network(network: NetworkConfig, task: Task) -> None:
    """ValueError if this network cannot learn this kind of task."""
    if task.targets is not None:
        seen = "for a forecast, which must not see what follows"
        require(not network.bidirectional, "network.bidirectional", True, f"False {seen}")
    if network.recent:
        whole = task.targets is not None and task.splits["train"].mask is None
        allowed = "0 for what is no forecast, and where values may be missing"
        require(whole, "network.recent", network.recent, allowed)
    if task.kind in ("language", "recall"):
        seen = f"for a {task.kind} task, which must not see the next token"
        require(not network.bidirectional, "network.bidirectional", True, f"False {seen}")
        by_sample = network.norm in ("layer", "rms")
        require(by_sample, "network.norm", network.norm, f"layer or rms {seen}")


OF_BLOCKS = tuple(field.name for field in fields(BlockSettings))
"""The settings of a network that its blocks have."""

_BUILDERS: dict[Kind, Callable[..., tuple[Any, eqx.nn.State]]] = {
    "classification": classifier,
    "pair": pair_classifier,
    "multilabel": classifier,
    "values": classifier,
    "regression": regressor,
    "language": language_model,
    "recall": language_model,
}


def _task_settings(task: Task, network: NetworkConfig) -> dict[str, Any]:
    """The arguments that a model of this kind of task takes from it."""
    common = {"intervals": task.splits["train"].intervals is not None}
    match task.kind:
        case "language" | "recall":
            own = {"vocabulary": task.input_size}
        case "regression":
            own = {
                "input_size": task.input_size,
                "outputs": task.outputs,
                "frame": task.frame,
                "targets": task.targets,
                "recent": network.recent or None,
            }
        case _:
            own = {
                "input_kind": task.input_kind,
                "input_size": task.input_size,
                "classes": task.outputs,
                "pooling": network.pooling,
            }
    return {**common, **own}


def with_static(params: Any, static: Any) -> Any:
    """The model from its arrays and the static parts of the initial model. As `eqx.combine`, but
    `params` may hold additional trees: maps that a cut has added.
    """
    return jax.tree.map(
        lambda fixed, array: array if fixed is None else fixed,
        static,
        params,
        is_leaf=lambda x: x is None,
    )


def parameter_count(params: Any) -> int:
    """Number of trained real numbers."""
    return sum(x.size for x in jax.tree.leaves(params) if _is_trained(x))


def _is_trained(x: Any) -> bool:
    """Whether `x` is an array, or the shape of one, that an optimizer changes."""
    is_array = isinstance(x, jax.Array | jax.ShapeDtypeStruct)
    return is_array and jnp.issubdtype(x.dtype, jnp.inexact)


def ssm_layers(model: Any) -> list[AbstractSSM]:
    """The state-space layers of a model, in order."""
    return [layer for _, layer in keyed_layers(model)]


def layer_sizes(model: Any) -> list[int]:
    """`d_state` of every state-space layer, in order."""
    return [layer.d_state for layer in ssm_layers(model)]


def layer_paths(model: Any) -> list[str]:
    """The path of every state-space layer in the model: `blocks[0].ssm`."""
    return [path_name(keys) for keys, _ in keyed_layers(model)]
