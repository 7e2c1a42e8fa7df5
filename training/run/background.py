"""Background work beside the training loop. Training results do not depend on it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The outcome of the work."""

    compiled: list[tuple[str, float]]
    """Programs compiled, and the seconds of each."""
    seconds: float
    """How long all of it took."""
    error: str | None
    """The error; None without one."""


class Background:
    """Work in a thread of its own, which starts at once.

    `pieces` yields after each piece of it the name of the program that was compiled and the seconds
    that it took, None for them where another had compiled it already. What it raises is kept for
    the outcome.
    """

    def __init__(self, pieces: Iterator[tuple[str, float | None]]):
        self._stopped = threading.Event()
        self._compiled: list[tuple[str, float]] = []
        self._start, self._end = time.perf_counter(), None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._done: Future[None] = self._executor.submit(self._work, pieces)

    def _work(self, pieces: Iterator[tuple[str, float | None]]) -> None:
        try:
            for what, seconds in pieces:
                if seconds is not None:
                    self._compiled.append((what, seconds))
                if self._stopped.is_set():
                    return
        finally:
            self._end = time.perf_counter()

    def worked_since(self, moment: float) -> bool:
        """Whether it went on after `moment`, as `time.perf_counter` counts."""
        return self._end is None or self._end > moment

    def finish(self) -> Outcome:
        """Wait for the end; what became of it."""
        error = self._done.exception()
        self._executor.shutdown()
        return Outcome(
            compiled=self._compiled,
            seconds=(self._end or time.perf_counter()) - self._start,
            error=None if error is None else f"{type(error).__name__}: {error}",
        )

    def cancel(self) -> None:
        """Stop it after the current piece, and wait for this."""
        self._stopped.set()
        self._executor.shutdown(cancel_futures=True)
