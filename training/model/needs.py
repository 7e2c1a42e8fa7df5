"""Estimate of the least memory of a run, before anything is allocated."""

import os

import jax

from data.task import Task

from ..settings.config import RunConfig

COPIES = 4
"""Numbers per parameter: itself, its gradient, and two moments."""
BYTES = 4
"""Bytes of a number in single precision."""
HALF = 2
"""Bytes of a number in half precision."""
SPECTRUM = 16 * 2**2
"""Bytes for each pair of states when a layer is weighed: complex matrices of twice the size."""


def available_bytes() -> int:
    """The memory of the device that computes: of the GPU, or of the machine."""
    limits = jax.local_devices()[0].memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return limits.get("bytes_limit", machine)


def check_memory(config: RunConfig, task: Task) -> None:
    """ValueError if the run needs more memory than there is. It names the setting to change.

    The estimate is low: each layer has d_state x d_model parameters or more, each block d_model^2
    for its gates, training keeps the input of every block, and weighing a layer takes matrices as
    wide as its states. Nothing is allocated.
    """
    network, loop, available = config.network, config.loop, available_bytes()
    stream = HALF if config.precision == "bf16" else BYTES
    width, states = network.d_model, config.layer.d_state
    layers = network.blocks * (2 if network.bidirectional else 1)
    sizes = {
        "layer.d_state": states,
        "network.d_model": width,
        "network.blocks": network.blocks,
    }
    sample = task.length * (task.input_size if task.input_kind == "real" else 1)
    weights = (layers * states * width + network.blocks * width**2) * COPIES
    needs = {
        max(sizes, key=lambda name: sizes[name]): weights,
        "batch_size": config.batch_size * task.length * width * network.blocks * stream // BYTES,
        "loop.steps_per_dispatch": loop.steps_per_dispatch * config.batch_size * sample,
        "loop.evaluation_batch": loop.evaluation_batch * sample,
    }
    values = sizes | {
        "batch_size": config.batch_size,
        "loop.steps_per_dispatch": loop.steps_per_dispatch,
        "loop.evaluation_batch": loop.evaluation_batch,
    }
    _require_room(SPECTRUM * states**2, available, "layer.d_state", states)
    for name, numbers in needs.items():
        _require_room(numbers * BYTES, available, name, values[name])


def check_parameters(count: int) -> None:
    """ValueError if `count` parameters do not fit into memory."""
    needed, available = count * COPIES * BYTES, available_bytes()
    if needed > available:
        raise ValueError(
            f"the model must be small enough for the {_gigabytes(available)} of memory that there "
            f"are, got {count} parameters, which take {_gigabytes(needed)} in training"
        )


def _require_room(needed: int, available: int, name: str, value: int) -> None:
    room = f"small enough for the {_gigabytes(available)} of memory that there are"
    if needed > available:
        raise ValueError(f"`{name}` must be {room}, got {value}, which takes {_gigabytes(needed)}")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
