"""Schedules of a run: learning rates and shrinks, as functions of the step alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optax

from compress.policies.looks import look_steps

from .config import CompressionConfig, OptimizerConfig, RunConfig


def learning_rate_schedule(
    config: OptimizerConfig, steps: int, factor: float = 1.0
) -> optax.Schedule:
    """Learning rate at an optimizer count 0..steps-1, times `factor` at its peak.

    `cosine` rises linearly from `floor` over the first `warmup` of the steps and falls to `floor`
    along half a cosine (the paper's setting); `constant` is the peak throughout.
    """
    peak = config.learning_rate * factor
    if config.schedule == "constant":
        return optax.constant_schedule(peak)
    return optax.warmup_cosine_decay_schedule(
        init_value=config.floor,
        peak_value=peak,
        warmup_steps=min(round(config.warmup * steps), steps - 1),
        decay_steps=steps,
        end_value=config.floor,
    )


def learning_rates(config: OptimizerConfig, steps: int, count: int) -> dict[str, float]:
    """Learning rates at an optimizer count, the peak's and that of the layers' dynamics."""
    factors = {"learning_rate": 1.0, "learning_rate_ssm": config.ssm_factor}
    return {
        name: np.asarray(learning_rate_schedule(config, steps, factor)(count)).item()
        for name, factor in factors.items()
    }


def shrink_steps(config: CompressionConfig, steps: int) -> tuple[int, ...]:
    """The steps after which the layers shrink: equally spaced, the last one at the window's end.

    The window begins after the share `start` of the steps.
    They depend on nothing but the length of the run, not on when it logs or evaluates. A run too
    short for all of them has fewer.
    """
    if config.mode == "none":
        return ()
    if config.mode == "auto":
        return look_steps(steps)
    if config.every is not None:
        first, last = config.start * steps, (config.start + config.window) * steps
        every = range(config.every, steps, config.every)
        return tuple(step for step in every if first < step <= last + 1e-9)
    window = config.window * steps
    start = config.start * steps
    times = {round(start + window * (k + 1) / config.shrinks) for k in range(config.shrinks)}
    return tuple(sorted(t for t in times if 1 <= t < steps))


def rehearsal_step(config: CompressionConfig, steps: int) -> int | None:
    """The step after which the first shrink is rehearsed, None if it is not.

    `config.rehearsal` steps ahead, or at the start, while the main thread compiles training.
    """
    shrinks = shrink_steps(config, steps)
    return max(shrinks[0] - config.rehearsal, 0) if shrinks and config.rehearsal else None


def grace(config: RunConfig[Any, Any]) -> int:
    """Steps that are trained in the programs of the larger state after a shrink.

    None with a penalty on HSVs, which would have to differentiate the zero HSVs of the padding.
    """
    penalized = config.regularization.hankel > 0
    return 0 if penalized else min(config.compression.rehearsal, config.steps // 20)


def last_shrink(config: RunConfig[Any, Any], step: int, sizes: Sequence[int]) -> int:
    """The last shrink before `step`, or of those that follow within each other's `grace`.

    The sizes between them are not worth a compilation, so compilation follows the last. `sizes` are
    the current sizes of the layers, which may leave nothing to cut.
    """
    compression, shrinks = config.compression, shrink_steps(config.compression, config.steps)
    last = max(shrink for shrink in shrinks if shrink <= step)
    if compression.mode == "fixed" and max(sizes) <= (compression.rank or 0):
        return last
    for later in shrinks:
        if last < later <= last + grace(config):
            last = later
    return last


def takeover_step(config: RunConfig[Any, Any], step: int, sizes: Sequence[int]) -> int | None:
    """When programs of the layers' own size take over, None if the run ends before."""
    at = max(step, last_shrink(config, step, sizes) + grace(config))
    return at if at < config.steps else None


def takeover_after(
    config: RunConfig[Any, Any], step: int, cut_at: int | None, to_pay: float
) -> int | None:
    """In mode `auto`: when programs of the layers' own size take over after the cut at `cut_at`.

    None if there was no cut, or if fewer steps are left than the `to_pay` after which they have
    saved the time of their compilation.
    """
    if cut_at is None:
        return None
    at = max(step, cut_at + grace(config))
    return at if config.steps - at >= max(1, to_pay) else None


def rank_at(config: CompressionConfig, shrink: int, shrinks: int, d_state: int) -> int:
    """Rank after shrink number `shrink` = 1, 2, ..., `shrinks`, from `d_state` at the start.

    For the modes `fixed` and `budget`. Ranks fall geometrically to `rank`, so that every shrink
    keeps the same share.
    """
    if config.rank is None:
        raise ValueError("`compression.rank` must be given for modes fixed and budget, got None")
    return max(config.rank, round(d_state * (config.rank / d_state) ** (shrink / shrinks)))
