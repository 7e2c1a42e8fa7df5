"""Ctrl-C that keeps everything."""

import math
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np


class Interrupted(Exception):
    """The run was asked to stop; everything up to `step` is saved in `folder`."""

    def __init__(self, step: int, folder: Path):
        super().__init__(f"stopped at step {step}")
        self.step, self.folder = step, folder


class Diverged(ArithmeticError):
    """The loss is no longer a number; the last checkpoint is from before."""


def check_loss(loss: float, first: int, last: int, saved: int | None) -> None:
    """`Diverged` for a mean loss over the steps from `first` to `last` that is not finite.

    `saved` is the step of the last checkpoint.
    """
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss is {loss} between steps {first} and {last}; the last checkpoint is from "
            f"step {saved}: lower optimizer.learning_rate"
        )


def check_finite(params: Any, step: int, saved: int | None) -> None:
    """`Diverged` for parameters that hold NaN or infinity after `step`; `saved` is as above."""
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        if not np.all(np.isfinite(x)):
            raise Diverged(
                f"{jax.tree_util.keystr(path)} is not finite after step {step}; the last "
                f"checkpoint is from step {saved}: lower optimizer.learning_rate"
            )


class Interrupt:
    """Inside this context the first Ctrl-C (or SIGTERM) is only remembered, in `requested`.

    The second one is a KeyboardInterrupt at once. Outside of the main thread, where Python allows
    no signal handlers, nothing changes.
    """

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
