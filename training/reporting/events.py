"""The event log of a run, and where its events go.

The training loop describes a run as a series of *events*, plain dictionaries with the keys "event"
and "step", and passes each to every *sink*: the log on disk, TensorBoard, the terminal.
`metrics.jsonl` in the run directory holds one event on each line, in the order in which they
happened. Steps count optimizer updates, times are in seconds, accuracies lie in [0, 1]:

- `start`: step 0, task, kind (of the task), model, seed, total_steps, parameters, length (samples
  in a sequence), outputs (classes, values or tokens), baselines {name: accuracy, or the main
  measure}, layers [{path, d_state}]
- `train`: step, loss, MEASURES, learning_rate, learning_rate_ssm, steps_per_second, d_state [one
  for each layer], width [the same of the program that trains them], alone (whether nothing was
  computed in the background), seconds (since the run began); means over the steps since the
  previous one
- `eval`: step, split ("validation" or "test"), loss, MEASURES, seconds, duration
- `spectrum`: step, layers [{path, d_state, sigma (Hankel singular values, descending), gramians
  (the source of sigma)}]
- `shrink`: step, layers [{path, before, after, sigma, gramians (the source of sigma), bounded
  (whether the bound applies to this cut: not with methods on data), bound (of balanced truncation
  to this size: 2 * sum of the HSVs beyond it), sigma_next (the first of them), error (measured
  H-infinity error), holds (whether it is within the bound); the last two are null without a cut,
  the last four for a selective layer}], loss_before, loss_after (on the calibration sequences),
  rejected (sizes of a cut that compression.guard refused, or null), plan_seconds, compress_seconds,
  duration (until training continued, including waiting; errors are measured after that); without a
  cut, before == after
- `look`: step, decision ("wait", "cut", or "held" for a cut on trial that holds), why (in words),
  loss, trivial (the loss of a constant answer), duration; in mode auto, on held-back sequences. The
  "shrink" event of a cut has the same why, a "rollback" has its own
- `rehearsal`: step (of the first shrink, whose event comes next), seconds (in the background),
  waited (by the shrink, for its end), error (text or null)
- `takeover`: step, d_state [one for each layer: training continues in programs of these sizes;
  since the last shrink it ran in the larger programs], seconds (of compilation in the background),
  waited (for its end), error (or null)
- `compile`: step, seconds, what ("train step" or "eval step"), background (whether training
  continued meanwhile; logged at its end)
- `checkpoint`: step (whose state is complete on the disk; logged after that)
- `rollback`: step (to which the run returns), from_step, tried [sizes that did not hold], d_state
  [sizes now], measured (validation measure of the discarded model), needed (the measure that it had
  to reach); events between the two steps leave the log
- `best`: step, best_step (best validation step after the last cut), validation {loss, MEASURES},
  test {loss, MEASURES} (at that step)
- `resume`: step, damaged [steps of later checkpoints that could not be read]
- `interrupt`: step
- `end`: step

MEASURES are those of the kind of the task (`training.model.objective`), by their keys, such as
accuracy. Numbers that JSON cannot hold (NaN and infinity) are written as null. An event may have
further keys. A resumed run continues its log, whose first event is "start". The other sinks get
that event again, since they need its names and sizes.
"""

import json
import numbers
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np

from ..model.objective import OBJECTIVES, Objective

Event = dict[str, Any]


@runtime_checkable
class Sink(Protocol):
    """A receiver of the events of a run, one by one, until it is closed."""

    def write(self, event: Event) -> None:
        """Receives one event. The sink must not change it."""
        ...

    def rewind(self, step: int) -> None:
        """Removes the events after the training of step `step`."""
        ...

    def close(self) -> None:
        """Releases what the sink holds. A second call does nothing."""
        ...


def _plain(value: Any, where: str) -> Any:
    """`value` in the types of JSON; NaN and infinity become None."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if np.isfinite(number) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), where)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    # Arrays on a device are refused on purpose: converting them would hide a synchronisation.
    raise TypeError(
        f"{where} must be a number, a string, a list, a dictionary or a NumPy array to stand in an "
        f"event, got a {type(value).__name__}"
    )


def _line(event: Event) -> str:
    name, step = event.get("event"), event.get("step")
    if not isinstance(name, str):
        raise ValueError(f"an event must have its name under 'event', got {name!r}")
    if isinstance(step, bool) or not isinstance(step, numbers.Integral):
        raise ValueError(f"a {name!r} event must have a whole number under 'step', got {step!r}")
    return json.dumps(_plain(event, name), allow_nan=False, separators=(",", ":")) + "\n"


def write_atomically(path: str | Path, content: str | Iterable[bytes]) -> None:
    """Replaces the file at `path` by `content` in one move.

    A reader, or a process killed meanwhile, finds the old file or the new one, never a part.
    """
    path = Path(path)
    chunks = [content.encode()] if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, readable for a person."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def _parse(raw: bytes) -> Event:
    event = json.loads(raw)
    if not isinstance(event, dict):
        raise ValueError(f"a JSON object was expected, not {type(event).__name__}")
    if not isinstance(event.get("event"), str) or not isinstance(event.get("step"), int):
        raise ValueError("the keys 'event' (a name) and 'step' (a whole number) are missing")
    return event


def _read(path: str | Path) -> list[tuple[bytes, Event]]:
    """The complete lines of the log, without their newlines, and their events."""
    content = Path(path).read_bytes()
    *lines, rest = content.split(b"\n")
    pairs: list[tuple[bytes, Event]] = []
    for number, raw in enumerate(lines, start=1):
        try:
            pairs.append((raw, _parse(raw)))
        except ValueError as error:  # includes JSON and UTF-8 decoding errors
            raise ValueError(f"{path}, line {number}: not an event ({error})") from error
    with suppress(ValueError):  # the process was killed while it wrote this line
        pairs.append((rest, _parse(rest)))
    return pairs


def read_events(path: str | Path) -> list[Event]:
    """The events in the log at `path`, in order.

    A last line that a killed process left without its end is dropped. Anything else that is not an
    event raises a `ValueError` that names the file and the line.
    """
    return [event for _, event in _read(path)]


def truncate_after(path: str | Path, step: int) -> None:
    """Cuts the log at `path` back to the checkpoint at `step`, atomically.

    Dropped are the events of later steps, and those of `step` itself that follow its "checkpoint"
    event. A run that resumes from there writes them again; with this its log is that of a run which
    was never disturbed. The lines that stay keep every byte.
    """
    kept = [(raw, event) for raw, event in _read(path) if event["step"] <= step]
    for i in reversed(range(len(kept))):
        if kept[i][1]["event"] == "checkpoint" and kept[i][1]["step"] == step:
            del kept[i + 1 :]
            break
    write_atomically(path, [raw + b"\n" for raw, _ in kept])


def rewind_to(path: str | Path, step: int) -> None:
    """Cuts the log at `path` back, atomically, to the report of the training of `step`."""
    kept = [
        raw
        for raw, event in _read(path)
        if event["step"] < step or (event["step"] == step and event["event"] == "train")
    ]
    write_atomically(path, [raw + b"\n" for raw in kept])


class EventLog:
    """The sink that writes `metrics.jsonl`: one event a line, flushed as it is written.

    `append=False` begins a new log and replaces an existing one. `append=True` continues it, after
    removing an incomplete last line of a killed process.
    """

    def __init__(self, path: str | Path, append: bool):
        if append and Path(path).exists():
            with open(path, "rb+") as file:
                content = file.read()
                rest = content[content.rfind(b"\n") + 1 :]
                try:
                    _parse(rest)
                except ValueError:
                    file.truncate(len(content) - len(rest))
                else:
                    file.write(b"\n")
        self._path = path
        self._file = self._open("a" if append else "w")

    def _open(self, mode: str) -> IO[str]:
        return open(self._path, mode, encoding="utf-8", newline="\n")  # closed by `close`

    def write(self, event: Event) -> None:
        """Appends `event`.

        Raises `ValueError` if it has no name or step and `TypeError` if a value is not plain data;
        nothing is written then.
        """
        self._file.write(_line(event))
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Drops the events after the training of step `step`."""
        self._file.close()
        rewind_to(self._path, step)
        self._file = self._open("a")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def objective_of(start: Mapping[str, Any]) -> Objective:
    """The objective of the run, from its "start" event; without a kind it is a classification."""
    return OBJECTIVES[start.get("kind") or "classification"]


def measured_keys(start: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of the loss and of the measures in the events after this "start"."""
    return "loss", *(measure.key for measure in objective_of(start).measures)
