"""Settings for every model, task and scale, in one table each."""

from dataclasses import replace
from typing import Any, Literal

from data import task_entry
from zoo import layer_config

from .config import (
    CompressionConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)

Scale = Literal["small", "paper"]

PAPER: dict[str, dict[str, Any]] = {
    # The paper's table of settings; tolerances as published for the task nearest to it.
    "smnist": {
        "steps": 200_000,
        "batch_size": 50,
        "data": {},
        "layer": {"d_state": 256},
        "network": NetworkConfig(d_model=8, blocks=1, dropout=0.1),
        "optimizer": OptimizerConfig(learning_rate=4e-4, weight_decay=0.0, schedule="constant"),
        "compression": CompressionConfig(tolerance=0.02),
        "loop": LoopConfig(evaluate_every=5000, checkpoint_every=5000, log_every=500),
    },
    "pathfinder": {
        "steps": 500_000,
        "batch_size": 64,
        "data": {"resolution": 32, "contour_length": 14},
        "layer": {"d_state": 256},
        "network": NetworkConfig(d_model=192, blocks=6, dropout=0.0),
        "optimizer": OptimizerConfig(learning_rate=1e-3, ssm_factor=0.25, weight_decay=0.05),
        "compression": CompressionConfig(tolerance=0.05),
        "loop": LoopConfig(evaluate_every=5000, checkpoint_every=5000, log_every=500),
    },
}

SMALL: dict[str, dict[str, Any]] = {
    # Contours of 3 dashes on 16x16: what two cores can learn in minutes.
    "pathfinder": {
        "steps": 16_000,
        "batch_size": 16,
        "data": {"resolution": 16, "contour_length": 3},
        "layer": {"d_state": 64},
        "network": NetworkConfig(d_model=32, blocks=2, bidirectional=True),
        "optimizer": OptimizerConfig(learning_rate=4e-3, ssm_factor=0.25, weight_decay=0.05),
        "compression": CompressionConfig(tolerance=0.1, multiple=8),
        "loop": LoopConfig(evaluate_every=2000, checkpoint_every=2000, log_every=100),
    },
    # The paper's network and batch, a fiftieth of its steps at ten times its learning rate.
    "smnist": {
        "steps": 4000,
        "batch_size": 50,
        "data": {},
        "layer": {"d_state": 256},
        "network": NetworkConfig(d_model=8, blocks=1, dropout=0.1),
        "optimizer": OptimizerConfig(learning_rate=4e-3, ssm_factor=0.5, weight_decay=0.0),
        "compression": CompressionConfig(tolerance=0.02, multiple=4),
        "loop": LoopConfig(evaluate_every=1000, checkpoint_every=1000),
    },
    "digits": {
        "steps": 2000,
        "batch_size": 50,
        "data": {},
        "layer": {"d_state": 64},
        "network": NetworkConfig(d_model=32, blocks=2, dropout=0.1),
        "optimizer": OptimizerConfig(learning_rate=4e-3, ssm_factor=0.5, weight_decay=0.05),
        "compression": CompressionConfig(tolerance=0.02, multiple=4),
        "loop": LoopConfig(evaluate_every=200),
    },
}

SCALES: dict[str, dict[str, dict[str, Any]]] = {"small": SMALL, "paper": PAPER}

MODEL_LAYERS: dict[str, dict[str, Any]] = {
    "lru": {"r_min": 0.9, "r_max": 0.999},
    "s5": {"step_min": 1e-3, "step_max": 1e-1},
    "mamba": {"dt_min": 1e-3, "dt_max": 1e-1},
    "mamba2": {"dt_min": 1e-3, "dt_max": 1e-1},
}


def preset(model: str, task: str, scale: str) -> RunConfig[Any, Any]:
    """The configuration of `model` on `task` at `scale`; a ValueError says what there is."""
    layer_class, entry = layer_config(model), task_entry(task)
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r}, allowed: {', '.join(SCALES)}")
    if task not in SCALES[scale]:
        with_scale = [name for name, table in SCALES.items() if task in table]
        raise ValueError(f"scale={scale!r} is not there for task {task}, allowed: {with_scale}")
    settings = dict(SCALES[scale][task])
    layer: Any = layer_class(**MODEL_LAYERS[model] | settings.pop("layer"))
    data = entry.config_class(**settings.pop("data"))
    empty = RunConfig(layer=layer, data=data)
    return replace(empty, model=model, task=task, scale=scale, **settings)
