"""Passes the events of a run to its sinks, in order."""

from typing import Any

from ..reporting.events import Sink
from .checkpoint import Checkpoints
from .clock import Clock
from .shrink_report import ShrinkReport


class Reporter:
    """Passes every event to every sink. The report of a shrink is delayed, since its errors are
    measured while training goes on. Events of this training wait for it, with `holds_back`; any
    other event ends the wait. The event of a checkpoint is written when it is complete on the disk,
    before the next event.
    """

    def __init__(self, checkpoints: Checkpoints, clock: Clock, holds_back: bool = True):
        """`holds_back` must be false for processes that train together: they save at one time."""
        self.sinks: list[Sink] = []
        self.late: ShrinkReport | None = None
        """The shrink that is not reported yet, None if there is none."""
        self._checkpoints, self._clock = checkpoints, clock
        self._holds_back = holds_back
        self._held: list[tuple[str, int, dict[str, Any]]] = []
        self._saving: int | None = None

    def emit(self, event: str, step: int, **fields: Any) -> None:
        """Report an event of this step, after the shrink and the checkpoint before it."""
        if event == "train" and self._holds_back and self.late and not self.late.is_ready:
            self._held.append((event, step, fields))
            return
        self.finish()
        self.confirm()
        self._write(event, step, fields)

    def finish(self) -> None:
        """Report the last shrink, save the state after it, and report the training since then, if
        this is still pending."""
        shrink, self.late = self.late, None
        if shrink is None:
            return
        saved = shrink.deliver(self._write, self._clock)
        if saved is not None:
            self.save(shrink.step, *saved)
        held, self._held = self._held, []
        for event in held:
            self.confirm()
            self._write(*event)

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
