"""The delayed report of a shrink, which waits for its certificates."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .clock import Clock

Layers = list[dict[str, Any]]
Write = Callable[[str, int, dict[str, Any]], None]


class ShrinkReport:
    """The report of a shrink, whose errors are measured while training goes on.

    Until it is delivered, the log does not know of the shrink, and the state after it is saved
    nowhere: a run that is killed meanwhile goes through the shrink again when it resumes.
    """

    def __init__(self, step: int, layers: Callable[[], Layers], **fields: Any):
        """`layers` computes the event's entries on layers, in its own thread; `fields` are the
        others."""
        self.step, self._fields = step, fields
        self.saved: tuple[Any, dict[str, Any]] | None = None
        """The state after it and the metadata of its checkpoint, if it is to be saved."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="certificates")
        self._layers = self._executor.submit(layers)

    @property
    def is_ready(self) -> bool:
        """Whether `deliver` does not have to wait."""
        return self._layers.done()

    def deliver(self, write: Write, clock: Clock) -> tuple[Any, dict[str, Any]] | None:
        """Write the event after waiting for the certificates. Returns what is to be saved, or
        None."""
        with clock.phase("shrink"):
            self._executor.shutdown()
            layers = self._layers.result()
        write("shrink", self.step, {"layers": layers, **self._fields})
        return self.saved
