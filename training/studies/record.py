"""The record of a study's run: its configuration, its summary, and its course in a few numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..reporting.events import read_events, write_atomically
from ..settings.errors import UsageError
from .study import Planned, run_name

RECORDS = "records.jsonl"
"""The file in a study's folder that holds the records of its runs, one line each."""

SPECTRA = 12
"""Spectra kept of a run, spread over its steps: of the first seed. Figures show no others. Of a
study over several tasks, which has many runs, only ends are kept: no spectra, no evaluations."""


def make_record(
    planned: Planned,
    folder: Path,
    config: dict[str, Any],
    finished: Mapping[str, Mapping[str, Any]],
    *,
    shared: bool = False,
) -> dict[str, Any]:
    """The record of a finished run in `folder`, as JSON can hold it.

    `seconds_before` is the wall time of the run that this one learned from or was cut from: part of
    its cost. `shared`: the machine did other work beside it, so that its times are not shown.
    """
    events = read_events(folder / "metrics.jsonl")

    def named(name: str) -> list[dict[str, Any]]:
        return [event for event in events if event["event"] == name]

    has_course = planned.variant.task is None
    summary = json.loads((folder / "summary.json").read_text())
    if not has_course:
        summary["phases"] = summary["phases"][-1:]
    return {
        "variant": planned.variant.name,
        "seed": planned.seed,
        "seconds_before": sum(
            finished[run_name(name, planned.seed)]["summary"]["seconds"]["total"]
            for name in (planned.variant.taught_by, planned.variant.cut_from)
            if name is not None
        ),
        "config": config,
        "environment": json.loads((folder / "environment.json").read_text())
        | ({"shared": True} if shared else {}),
        "summary": summary,
        "evaluations": [
            {k: v for k, v in event.items() if k not in ("event", "duration")}
            for event in named("eval")
            if has_course
        ],
        "shrinks": [
            {
                "step": event["step"],
                "before": [layer["before"] for layer in event["layers"]],
                "after": [layer["after"] for layer in event["layers"]],
                "loss_before": event["loss_before"],
                "loss_after": event["loss_after"],
                "duration": event["duration"],
            }
            for event in named("shrink")
        ],
        "spectra": _some(named("spectrum")) if planned.seed == 0 and has_course else [],
    }


def _some(spectra: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`SPECTRA` of these events, spread over the run."""
    kept = {round(k * (len(spectra) - 1) / (SPECTRA - 1)) for k in range(SPECTRA)}
    return [
        {
            "step": spectra[k]["step"],
            "sigma": [[_short(s) for s in layer["sigma"]] for layer in spectra[k]["layers"]],
        }
        for k in sorted(kept)
        if 0 <= k < len(spectra)
    ]


def finished_runs(file: Path) -> dict[str, dict[str, Any]]:
    """The records in a study's file, by the names of their runs; none where there is no file.

    UsageError names the line of a damaged record.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    records = [_parsed(line, f"{file}, line {k}") for k, line in enumerate(lines, start=1)]
    return {run_name(record["variant"], record["seed"]): record for record in records}


def keep_record(file: Path, record: Mapping[str, Any]) -> None:
    """Put the record of a run into its study's file, one line a run, sorted by name."""
    name = run_name(record["variant"], record["seed"])
    records = {**finished_runs(file), name: record}
    lines = [json.dumps(records[name], separators=(",", ":")) for name in sorted(records)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "\n".join([*lines, ""]))


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where} is damaged ({error}): remove it to run it again") from error
    if not isinstance(record, dict) or not {"variant", "seed", "config", "summary"} <= set(record):
        raise UsageError(f"{where} is not the record of a run: remove it to run it again")
    return record


def _short(value: float | None) -> float | None:
    """Four digits, enough for a plot."""
    return None if value is None else float(f"{value:.4g}")
