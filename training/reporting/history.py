"""The content of a run directory in the form of the report."""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ..model.objective import Objective
from .events import Event, objective_of, read_events


class Phase(TypedDict):
    """A part of the run in which the sizes of layers and programs are constant."""

    from_step: int
    to_step: int
    d_state: list[int]
    width: NotRequired[list[int]]
    """States of the layers in the programs: for a while after a shrink, those from before it."""
    steps_per_second: float | int | None


@dataclass(frozen=True)
class ProgramSpeed:
    """The speed of the training program for layers of given sizes."""

    states: int
    """States that the program is made for, in all layers together."""
    from_step: int
    to_step: int
    rate: float | None
    """Steps per second while nothing else was computed; None if it never ran alone."""


@dataclass(frozen=True)
class History:
    """The events of a run and its summary, which may be empty."""

    events: list[Event]
    summary: Mapping[str, Any]

    @classmethod
    def from_directory(cls, run_dir: Path) -> "History":
        """Reads `metrics.jsonl` and, if it is there, `summary.json`."""
        log = run_dir / "metrics.jsonl"
        if not log.exists():
            raise FileNotFoundError(f"{log} is missing: there is no run to report in {run_dir}")
        summary = read_json(run_dir / "summary.json")
        if summary is not None and not isinstance(summary, dict):
            raise ValueError(f"{run_dir / 'summary.json'}: a JSON object was expected")
        return cls(read_events(log), summary or {})

    def named(self, name: str) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if event["event"] == name]

    @property
    def start(self) -> Event:
        """The first event, or an empty one."""
        starts = self.named("start")
        return starts[0] if starts else {}

    def get(self, key: str) -> Any:
        """A fact about the run: from the summary, else from the start event, else None."""
        value = self.summary.get(key)
        return self.start.get(key) if value is None else value

    @property
    def objective(self) -> Objective:
        """The main measure of the run."""
        return objective_of({"kind": self.get("kind")})

    @property
    def title(self) -> str:
        """Model, task and seed."""
        model, task, seed = self.get("model"), self.get("task"), self.get("seed")
        if model is None or task is None:
            return "A training run"
        return f"{model} on {task}" + ("" if seed is None else f", seed {seed}")

    @property
    def total_steps(self) -> int | None:
        """Planned steps of the run."""
        return self.get("total_steps")

    @property
    def last_step(self) -> int:
        """The last step that the log knows."""
        return max((event["step"] for event in self.events), default=0)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.named("end"))

    @property
    def baselines(self) -> Mapping[str, float | int]:
        """The main measure of baselines without a model, by name."""
        return self.get("baselines") or {}

    def _last_eval(self, split: str) -> Mapping[str, Any] | None:
        if self.summary.get(split):
            return self.summary[split]
        found = [event for event in self.named("eval") if event["split"] == split]
        return found[-1] if found else None

    @property
    def test(self) -> Mapping[str, Any] | None:
        """Loss and measures on the test split; None if it was not reached."""
        return self._last_eval("test")

    @property
    def validation(self) -> Mapping[str, Any] | None:
        """The last loss and measures on the validation split."""
        return self._last_eval("validation")

    @property
    def shrinks(self) -> list[Event]:
        """Every shrink, also those that cut nothing."""
        return self.named("shrink")

    @property
    def cuts(self) -> list[Event]:
        """The shrinks that made a layer smaller."""
        return [
            event
            for event in self.shrinks
            if any(row["after"] != row["before"] for row in event["layers"])
        ]

    @property
    def paths(self) -> list[str]:
        """The names of the layers."""
        layers = self.start.get("layers") or self.summary.get("layers") or []
        if not layers and self.shrinks:
            layers = self.shrinks[0]["layers"]
        return [layer["path"] for layer in layers]

    @property
    def size_changes(self) -> list[tuple[int, list[int]]]:
        """(step, states of every layer from then on), beginning with the first sizes."""
        sizes = {layer["path"]: layer["d_state"] for layer in self.start.get("layers", [])}
        if not sizes and self.shrinks:
            sizes = {row["path"]: row["before"] for row in self.shrinks[0]["layers"]}
        if not sizes:
            sizes = {row["path"]: row["before"] for row in self.summary.get("layers", [])}
        changes = [(0, list(sizes.values()))] if sizes else []
        for event in self.cuts:
            sizes.update({row["path"]: row["after"] for row in event["layers"]})
            changes.append((event["step"], list(sizes.values())))
        return changes

    @property
    def sizes_before(self) -> list[int]:
        """States of every layer at the start."""
        return self.size_changes[0][1] if self.size_changes else []

    @property
    def sizes_after(self) -> list[int]:
        """States of every layer at the end."""
        return self.size_changes[-1][1] if self.size_changes else []

    @property
    def seconds(self) -> Mapping[str, float | int]:
        """Wall time by phase. Without a summary, the sums over the events."""
        if self.summary.get("seconds"):
            return self.summary["seconds"]
        readers: dict[str, Callable[[Event], float | int]] = {
            "compile": _waited,
            "eval": lambda event: event["duration"],
            "shrink": lambda event: event["plan_seconds"] + event["compress_seconds"],
        }
        names = {"compile": "compile", "eval": "evaluate", "shrink": "shrink"}
        seconds: dict[str, float | int] = {
            names[kind]: sum(read(event) or 0 for event in self.named(kind))
            for kind, read in readers.items()
            if self.named(kind)
        }
        stamps = [event["seconds"] for event in self.named("train") + self.named("eval")]
        return {"total": max(stamps), **seconds} if stamps else seconds

    @property
    def phases(self) -> list[Phase]:
        """The run cut at its shrinks. Without a summary, the rates are medians over the log."""
        if self.summary.get("phases"):
            return self.summary["phases"]
        phases: list[Phase] = []
        for i, (begin, sizes) in enumerate(self.size_changes):
            last = i + 1 == len(self.size_changes)
            end = self.last_step if last else self.size_changes[i + 1][0]
            rates = [
                event["steps_per_second"]
                for event in self.named("train")
                if begin < event["step"] <= end and event.get("steps_per_second")
            ]
            phases.append(
                Phase(
                    from_step=begin,
                    to_step=end,
                    d_state=sizes,
                    steps_per_second=statistics.median(rates) if rates else None,
                )
            )
        return phases

    def program_speeds(self) -> list[ProgramSpeed]:
        """The speed of each program in the order of the run, from the reports of training.

        A program is known by the sizes that it is made for: after a cut, training goes on in the
        program of the larger layers until the next one is compiled. Rates are medians.
        """
        reports: dict[tuple[int, ...], list[Event]] = {}
        for event in self.named("train"):
            sizes = event.get("width") or self._width_at(event["step"]) or event.get("d_state")
            if sizes and event.get("steps_per_second"):
                reports.setdefault(tuple(sizes), []).append(event)
        speeds, before = [], 0
        for sizes, events in reports.items():
            rates = [e["steps_per_second"] for e in events if e.get("alone", True)]
            last = events[-1]["step"]
            rate = float(statistics.median(rates)) if rates else None
            speeds.append(ProgramSpeed(sum(sizes), before, last, rate))
            before = last
        return speeds

    def _width_at(self, step: int) -> list[int] | None:
        """The summary's entry on the program of this step."""
        for phase in self.summary.get("phases") or ():
            if phase["from_step"] < step <= phase["to_step"]:
                return phase.get("width", phase["d_state"])
        return None

    def compile_seconds(self, shrink: Event) -> float | int | None:
        """Seconds of compilation after `shrink`; None without a record. Compilation in the
        background is not counted.
        """
        events = [event for event in self.events if event["event"] != "rehearsal"]
        at = next(i for i, event in enumerate(events) if event is shrink)
        seconds = []
        # The loss after the cut is measured within the shrink: that program comes just before it.
        was_cut = any(row["after"] != row["before"] for row in shrink["layers"])
        if was_cut and at > 0 and events[at - 1]["event"] == "compile":
            seconds.append(_waited(events[at - 1]))
        for event in events[at + 1 :]:
            if event["event"] in ("shrink", "resume"):  # what follows has another cause
                break
            if event["event"] == "compile":
                seconds.append(_waited(event))
        return sum(seconds) if seconds else None


def _waited(compiled: Event) -> float | int:
    return 0 if compiled.get("background") else compiled["seconds"]


def read_json(path: Path) -> Any:
    """The contents of a JSON file, None if it is not there."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
