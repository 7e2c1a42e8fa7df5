"""Ctrl-C and SIGTERM without loss of the run's state."""

import contextlib
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

GRACE = 8.0
"""Seconds between SIGTERM and the end of the process. Clusters kill after about 30."""

Result = TypeVar("Result")


class Interrupted(Exception):
    """The run was asked to stop; everything up to `step` is saved in `folder`.

    `number` is the signal: the exit code of the process is 128 + `number`.
    """

    def __init__(self, step: int, folder: Path, number: int = signal.SIGINT):
        super().__init__(f"stopped at step {step}")
        self.step, self.folder, self.number = step, folder, number


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


class Stopped(Exception):
    """Waiting ended early, since the run was asked to stop."""


class Interrupt:
    """Inside this context the first Ctrl-C (or SIGTERM) is only remembered, in `requested`.

    The second Ctrl-C is a KeyboardInterrupt at once. SIGTERM leaves `grace` seconds [s]: then the
    process ends, whatever it is doing, with the exit code 143, after `expired()`. Outside of the
    main thread, where Python allows no signal handlers, nothing changes.
    """

    def __init__(self, expired: Callable[[], None] = lambda: None, grace: float = GRACE):
        self.requested = False
        self.number: int = signal.SIGINT
        """The signal that asked first."""
        self._expired, self._grace = expired, grace
        self._over = threading.Event()
        self._previous: dict[int, Any] = {}
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
            self._ends = reader, writer = socket.socketpair()
            writer.setblocking(False)
            self._earlier = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self._ends is not None:
            signal.set_wakeup_fd(self._earlier)
            self._ends[1].close()
            self._ends = None

    def wait(self, work: Callable[[], Result]) -> Result:
        """The result of `work()`, which runs in its own thread. `Stopped` as soon as a stop is
        requested. It is for compilations, which Python cannot interrupt: the work goes on, but is
        not waited for.
        """
        done: Future[Result] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # raised where the result is requested
                done.set_exception(error)

        threading.Thread(target=run, daemon=True, name="work").start()
        while not wait([done], timeout=0.1).done:
            if self.requested:
                raise Stopped
        return done.result()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.number = number
        self.requested = True

    def _watch(self, reader: socket.socket) -> None:
        """End the process some time after SIGTERM, also while Python waits in C++."""
        with reader:
            while heard := reader.recv(16):
                if signal.SIGTERM not in heard:
                    continue
                if not self._over.wait(self._grace):
                    said = threading.Thread(target=self._expired, daemon=True)
                    said.start()
                    said.join(1.0)  # it may wait for what the main thread holds
                    leave(128 + signal.SIGTERM)
                return


def leave(code: int) -> NoReturn:
    """End the process now, also while other threads work, after flushing its output. Python's
    normal exit would wait for all threads, and end the runtime while threads compile.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def stop_on_sigterm() -> None:
    """Outside of `Interrupt`, SIGTERM ends the process like an exception, so that workers end
    too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
