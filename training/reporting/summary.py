"""The tables of a report: states of the layers, wall time, and facts about the run."""

from collections.abc import Mapping
from typing import Any

from .history import History
from .page import format_count, format_short, section, table
from .words import format_seconds

PHASES = {
    "train": "training steps",
    "compile": "compilation",
    "evaluate": "evaluation",
    "shrink": "shrinking",
    "spectra": "Hankel singular values",
    "host": "waiting for batches",
    "data": "data",
    "checkpoint": "checkpoints",
    "other": "start, end and the report",
}
"""The names of a run's phases in reports."""


def facts_section(history: History, environment: Any) -> str:
    """Facts about the run. `environment` is the content of `environment.json`, None without it."""
    return section("The run", table((), _facts(history, environment)))


def layers_section(history: History) -> str:
    """The states of each layer, the speed of each program, and where the wall time went."""
    tables = {
        "States of each layer": _states(history),
        "Speed of each program": _speed(history),
        "Wall time": _wall_time(history),
    }
    parts = "".join(f"<div><h2>{name}</h2>{made}</div>" for name, made in tables.items() if made)
    return f'<section class="columns">{parts}</section>' if parts else ""


def _facts(history: History, environment: Any) -> list[tuple[str, Any]]:
    """Configuration, results and environment of the run, a line each."""
    parameters = format_count(history.get("parameters_before") or history.start.get("parameters"))
    if history.summary.get("parameters_after") is not None:
        parameters += f" → {format_count(history.summary['parameters_after'])}"
    facts: list[tuple[str, Any]] = [
        ("task", history.get("task") or "not recorded"),
        ("model", history.get("model") or "not recorded"),
        ("seed", "not recorded" if history.get("seed") is None else history.get("seed")),
        ("steps", f"{format_count(history.last_step)} of {format_count(history.total_steps)}"),
        ("parameters", parameters),
    ]
    if history.get("length") is not None:
        facts.append(("sequence length", f"{history.get('length')} samples"))
    last = " at the last step" if history.summary.get("best") else ""
    for split in ("test", "validation"):
        result = history.test if split == "test" else history.validation
        for k, measure in enumerate(history.objective.measures):
            value = "not reached"
            if result is not None and k > 0 and measure.key not in result:
                continue  # what was not counted then, or would be a table too large
            if result is not None:
                value = measure.show(result.get(measure.key))
                value += f" (loss {format_short(result.get('loss'))})" if k == 0 else ""
            facts.append((f"{split} {measure.label}{last}", value))
    facts += _best(history)
    return facts + _runs_on(environment)


def _best(history: History) -> list[tuple[str, Any]]:
    """The measures of the best state by validation, if one was kept."""
    best, measure = history.summary.get("best"), history.objective.measure
    if not best:
        return []
    where = f"at step {best['step']}, the best by validation"
    return [
        (f"{split} {measure.label} {where}", measure.show(best[split].get(measure.key)))
        for split in ("test", "validation")
    ]


def _states(history: History) -> str:
    """The states of each layer, before and after."""
    if not history.sizes_before:
        return ""
    largest = max([*history.sizes_before, *history.sizes_after, 1])
    triples = list(zip(history.paths, history.sizes_before, history.sizes_after, strict=True))
    return table(
        ("layer", "before", "after"),
        triples,
        numeric=(1, 2),
        bars=[(before / largest, after / largest) for _, before, after in triples],
    )


def _wall_time(history: History) -> str:
    """Where the wall time went."""
    seconds = dict(history.seconds)
    total = seconds.pop("total", None)
    if not seconds and total is None:
        return ""
    rest = 0.0 if total is None else max(0.0, total - sum(seconds.values()))
    if "train" in seconds and rest > 0.05:
        seconds["other"] = seconds.get("other", 0.0) + rest
    longest = max([*seconds.values(), 1e-9])
    rows = [(PHASES.get(name, name), format_seconds(value)) for name, value in seconds.items()]
    bars = [(value / longest, value / longest) for value in seconds.values()]
    if total is not None:
        rows.append(("total", format_seconds(total)))
    share = history.summary.get("host_share")
    if share is not None:
        rows.append(("share without training or evaluation", f"{share:.1%}"))
    waited = history.summary.get("data_share")
    if waited is not None:
        rows.append(("share of training spent waiting for batches", f"{waited:.2%}"))
    return table((), rows, numeric=(1,), bars=bars)


def _speed(history: History) -> str:
    """The steps per second of each program, alone."""
    rows = [
        (
            speed.states,
            f"{speed.from_step} to {speed.to_step}",
            "never ran alone" if speed.rate is None else f"{speed.rate:.4g}",
        )
        for speed in history.program_speeds()
    ]
    return table(("states", "steps", "steps/s, alone"), rows, (0, 1, 2)) if rows else ""


def _runs_on(environment: Any) -> list[tuple[str, str]]:
    """The content of the environment file, a line for each key."""
    if not isinstance(environment, Mapping):
        return [("environment", "not recorded")]
    lines = []
    for key, value in environment.items():
        text = _flat(value)
        lines.append((str(key).replace("_", " "), text if len(text) <= 600 else text[:599] + "…"))
    return lines


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(item) for item in value)
    return "none" if value is None else str(value)
