"""Sinks for experiment trackers: scalars, and TensorBoard."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .events import Event, measured_keys


class Scalars:
    """The single numbers in events, by their names in experiment trackers.

    Losses, measures, learning rates, steps per second and the state of each layer.
    """

    def __init__(self):
        self._paths: list[str] = []
        self._measured = measured_keys({})

    def of(self, event: Event) -> dict[str, float]:
        """The numbers of `event`. The "start" event comes first: it has the names."""
        match event["event"]:
            case "start":
                self._paths = [layer["path"] for layer in event["layers"]]
                self._measured = measured_keys(event)
                found = self._states([layer["d_state"] for layer in event["layers"]])
            case "train":
                rates = ("learning_rate", "learning_rate_ssm", "steps_per_second")
                found = {f"train/{key}": event.get(key) for key in (*self._measured, *rates)}
                found |= self._states(event.get("d_state", ()))
            case "eval":
                found = {f"{event['split']}/{key}": event.get(key) for key in self._measured}
            case "shrink":
                found = {f"state/{row['path']}": row["after"] for row in event["layers"]}
            case "rollback":
                found = self._states(event["d_state"])
            case _:
                found = {}
        return {name: float(value) for name, value in found.items() if value is not None}

    def _states(self, sizes: Sequence[int]) -> dict[str, Any]:
        named = [*self._paths, *(f"layer {k}" for k in range(len(self._paths), len(sizes)))]
        return {f"state/{path}": size for path, size in zip(named, sizes, strict=False)}


class TensorBoardMirror:
    """The sink that repeats a run as TensorBoard events under `directory`.

    Scalars (`Scalars`); the spectra, as histograms of log10 of each layer's Hankel singular values;
    `options` as hyperparameters, beside the measures of the test split. On resuming, pass the
    checkpoint's step as `resume_step`: TensorBoard then hides what was written after it. Needs the
    package tensorboardX.
    """

    def __init__(
        self,
        directory: str | Path,
        resume_step: int | None = None,
        options: Mapping[str, Any] | None = None,
    ):
        self._directory, self._options = Path(directory), dict(options or {})
        self._writer = self._open(resume_step)
        self._scalars = Scalars()
        self._closed = False

    def _open(self, resume_step: int | None) -> Any:
        """A file of events, written at once: the package's own thread would hide a full disk."""
        from tensorboardX.event_file_writer import EventsWriter  # slow to import

        self._directory.mkdir(parents=True, exist_ok=True)
        part = 0 if resume_step is None else resume_step
        writer = EventsWriter(str(self._directory / "events"), f".from-{part}")
        if resume_step is not None:
            log = _protocol().SessionLog(status=_protocol().SessionLog.START)
            mark = _protocol().Event(step=resume_step + 1, wall_time=time.time(), session_log=log)
            writer.write_event(mark)
        return writer

    def rewind(self, step: int) -> None:
        """Has TensorBoard hide what was written after step `step`."""
        self._writer.close()
        self._writer = self._open(step)

    def write(self, event: Event) -> None:
        """Mirrors what `event` holds."""
        from tensorboardX.summary import histogram, scalar

        step = int(event["step"])
        for tag, value in self._scalars.of(event).items():
            self._add(scalar(tag, value), step)
        if event["event"] == "start" and self._options:
            self._describe(event)
        if event["event"] == "spectrum":
            for row in event["layers"]:
                sigma = np.array([s for s in row["sigma"] if s], np.float64)
                if sigma.size:
                    self._add(histogram(f"log10_hsv/{row['path']}", np.log10(sigma), 30), step)
        self._writer.flush()

    def _describe(self, start: Event) -> None:
        """The options, and which scalars they are to be compared by."""
        from tensorboardX.summary import hparams

        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self._options.items()
        }
        measured = dict.fromkeys((f"test/{key}" for key in measured_keys(start)), 0.0)
        for part in hparams(plain, measured):
            self._add(part, 0)

    def _add(self, summary: Any, step: int) -> None:
        event = _protocol().Event(step=step, wall_time=time.time(), summary=summary)
        self._writer.write_event(event)

    def close(self) -> None:
        """Writes what is still buffered and closes the event file."""
        if not self._closed:
            self._closed = True
            self._writer.close()


def _protocol() -> Any:
    """What TensorBoard's events are made of."""
    from tensorboardX.proto import event_pb2

    return event_pb2
