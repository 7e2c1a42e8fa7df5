"""Hands the events of a run to its sinks, in order."""

from typing import Any

from ..reporting.events import Sink
from .checkpoint import Checkpoints
from .clock import Clock
from .shrink_report import ShrinkReport


class Reporter:
    """Hands every event to every sink.

    The report of a shrink comes late: its errors are measured while training goes on. All events
    after the shrink wait for it. That of a checkpoint comes when it is complete on the disk, which
    is waited for when the next event comes.
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
        """Report the last shrink, and save the state after it, where that is still to be done."""
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
        """Wait for the last checkpoint, and report it if that is still to be done.

        `SaveError` if it could not be written.
        """
        step, self._saving = self._saving, None
        if step is not None:
            with self._clock.phase("checkpoint"):
                self._checkpoints.wait()
            self._write("checkpoint", step, {})

    def rewind(self, step: int) -> None:
        """Take back what was reported, or was still to be, after the training of step `step`."""
        self._saving = None
        for sink in self.sinks:
            sink.rewind(step)

    def _write(self, event: str, step: int, fields: dict[str, Any]) -> None:
        for sink in self.sinks:
            sink.write({"event": event, "step": step, **fields})
