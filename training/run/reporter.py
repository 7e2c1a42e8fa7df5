"""Passes the events of a run to its sinks, in order."""

from typing import Any

from ..reporting.events import Sink
from .checkpoint import Checkpoints
from .clock import Clock
from .shrink_report import ShrinkReport


class Reporter:
    """Passes every event to every sink. The report of a shrink is delayed, since its errors are
    measured while training goes on. Later events wait for it. The event of a checkpoint is written
    when it is complete on the disk, before the next event.
    """

    def __init__(self, checkpoints: Checkpoints, clock: Clock):
        self.sinks: list[Sink] = []
        self.late: ShrinkReport | None = None
        """The shrink that is not reported yet, None if there is none."""
        self._checkpoints, self._clock = checkpoints, clock
        self._saving: int | None = None

    def emit(self, event: str, step: int, **fields: Any) -> None:
        """Report an event of this step, after the shrink and the checkpoint before it."""
        self.finish()
        self.confirm()
        self._write(event, step, fields)

    def finish(self) -> None:
        """Report the last shrink, and save the state after it, if this is still pending."""
        shrink, self.late = self.late, None
        if shrink is not None:
            saved = shrink.deliver(self._write, self._clock)
            if saved is not None:
                self.save(shrink.step, *saved)

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Begin a checkpoint of this step, which is reported when it is complete."""
        self.confirm()
        with self._clock.phase("checkpoint"):
            self._checkpoints.save(step, state, metadata)
        self._saving = step

    def confirm(self) -> None:
        """Wait for the last checkpoint, and report it if this is still pending.

        `SaveError` if it could not be written.
        """
        step, self._saving = self._saving, None
        if step is not None:
            with self._clock.phase("checkpoint"):
                self._checkpoints.wait()
            self._write("checkpoint", step, {})

    def rewind(self, step: int) -> None:
        """Remove reports, also pending ones, after the training of step `step`."""
        self._saving = None
        for sink in self.sinks:
            sink.rewind(step)

    def _write(self, event: str, step: int, fields: dict[str, Any]) -> None:
        for sink in self.sinks:
            sink.write({"event": event, "step": step, **fields})
