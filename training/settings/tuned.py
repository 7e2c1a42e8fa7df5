"""Default settings for a task without a preset, from the size of its data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data import TASKS, Task

from .config import (
    CompressionConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)
from .options import with_arguments
from .presets import AUTOMATIC, Preset
from .saved import DEFAULTS, complete

Settle = Callable[[Task], RunConfig[Any, Any]]
"""The function from the data to the configuration, for a task without a preset."""

SAMPLES = 10_000_000
"""Samples (steps of sequences) that a run of 32 channels is trained on at most, half as many with
64: minutes on two CPU cores."""
FEW_ROWS = 50_000
"""Rows of a series for training, below which forecasts are linear."""
EPOCHS = 60
"""Times that a run sees each sequence, within the limits of steps and samples."""


def tuned(task: Task, model: str) -> Preset:
    """The settings that a run of `model` on `task` starts with, a function of sizes alone.

    The batch is a power of two, about a sixteenth of the training sequences, and smaller for long
    ones. There are steps for `EPOCHS` epochs, but some hundreds at least and 5000 at most, and no
    more than `SAMPLES` allow. Windows of one series overlap, so epochs are counted in rows. The
    network is wider for many channels or classes, and has more dropout for few data. If the label
    belongs to the whole sequence, the network is bidirectional, and cannot stream
    (`network.bidirectional`). Forecasts are relative to the level of the last rows
    (`network.recent`), which seldom stays, unless values are missing; and linear in the rows
    (`network.gate`), unless there are `FEW_ROWS` or more. Cuts are those of mode `auto`, which
    needs to know nothing of the task.
    """
    n, length = len(task.splits["train"]), task.length * (2 if task.kind == "pair" else 1)
    overlap = task.kind == "language" or task.targets is not None
    linear = task.targets is not None and n < FEW_ROWS
    different = max(16 * n // length, 1) if overlap else n
    width = max(task.input_size if task.input_kind == "real" else 64, 2 * (task.classes or 0))
    d_model = _power_of_two(width, 32, 64)
    batch = min(_power_of_two(different / 16, 8, 64), _power_of_two(8192 / length, 4, 64), n)
    wanted = min(max(EPOCHS * different // batch, 600 if overlap else 1200), 5000)
    allowed = SAMPLES * 32 // (d_model * batch * length)
    steps = 200 * max(min(wanted, allowed) // 200, 1)
    every = steps // 10
    return Preset(
        steps=steps,
        batch_size=batch,
        d_state=64,
        selective_state=16,
        network=NetworkConfig(
            d_model=d_model,
            blocks=2,
            norm="rms" if task.kind in ("language", "recall") else "batch",
            dropout=0.0 if linear else 0.2 if n < 1000 else 0.1,
            bidirectional=task.kind in ("classification", "multilabel", "values"),
            gate="linear" if linear else "full_glu",
            recent=_recent(task),
        ),
        optimizer=OptimizerConfig(learning_rate=4e-3, ssm_factor=0.25, weight_decay=0.05),
        compression=replace(AUTOMATIC, calibration=min(64, n)),
        loop=LoopConfig(
            log_every=every // 2,
            evaluate_every=every,
            checkpoint_every=2 * every,
            steps_per_dispatch=max(min(every // 2, 400_000 // (batch * length), 25), 1),
        ),
        layer=_layer(model, length),
    )


def _recent(task: Task) -> int:
    """Rows that the level of a forecast is taken from: of a week of hours, a day."""
    if task.targets is None or task.splits["train"].mask is not None:
        return 0
    return max(2, task.length // 7)


def _layer(model: str, length: int) -> dict[str, Any]:
    """Fields of the layer: shorter memories for short sequences.

    Steps and eigenvalues of the classes' defaults are for some hundred samples and more.
    """
    shorter = max(1.0, min(300 / length, 20.0))
    if model == "s5":
        return {"step_min": 1e-3 * shorter, "step_max": min(0.1 * shorter, 1.0)}
    if model == "lru":
        return {"r_min": 0.9**shorter, "r_max": 0.999**shorter}
    return {}


def settle_later(given: Mapping[str, Any], file: Path | None, argv: Sequence[str]) -> Settle | None:
    """The function that applies the values of `given`, from `file`, and the options of a command
    line to the settings of `tuned`. None for a task with a preset.
    """
    if given.get("task", DEFAULTS["task"]) in TASKS:
        return None

    def settle(task: Task) -> RunConfig[Any, Any]:
        start = tuned(task, given.get("model", DEFAULTS["model"]))
        return with_arguments(complete(given, file, start), argv)

    return settle


def _power_of_two(x: float | int, low: int, high: int) -> int:
    """The power of two nearest to `x` from below, within bounds that are powers themselves."""
    return min(max(2 ** max(int(x), 1).bit_length() // 2, low), high)


def describe_settings(config: RunConfig[Any, Any], task: Task) -> list[str]:
    """The settings of a run on a task without a preset, as a few lines of text."""
    network = config.network
    sizes = ", ".join(f"{len(split)} for {name}" for name, split in task.splits.items())
    ways = " both ways" if network.bidirectional else ""
    extra = f"--network.gate {network.gate} " if network.gate != NetworkConfig.gate else ""
    extra += f"--network.recent {network.recent} " if network.recent else ""
    what = "channels" if task.input_kind == "real" else "tokens"
    return [
        f"{task.name}: {task.kind} of sequences of {task.length} steps, {task.input_size} {what}, "
        f"{task.outputs} outputs; {sizes}",
        f"settings by the size of the data: --network.blocks {network.blocks}{ways} "
        f"--network.d-model {network.d_model} --layer.d-state {config.layer.d_state} "
        f"--steps {config.steps} --batch-size {config.batch_size} "
        f"--optimizer.learning-rate {config.optimizer.learning_rate:g} "
        f"--network.dropout {network.dropout:g} {extra}{_how_far(config.compression)}",
    ]


def _how_far(compression: CompressionConfig) -> str:
    """The mode, and its main setting."""
    setting = {"auto": "loss", "tolerance": "tolerance", "fixed": "rank", "budget": "rank"}
    name, mode = setting.get(compression.mode), f"--compression.mode {compression.mode}"
    return mode if name is None else f"{mode} --compression.{name} {getattr(compression, name):g}"
