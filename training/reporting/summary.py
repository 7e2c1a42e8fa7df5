"""The summary of a report: what the run was, how its layers shrank, and where its time went."""

from collections.abc import Mapping
from typing import Any

from .history import History
from .page import format_count, format_short, table
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
}
"""The phases of a run's clock, for people."""


def summary_section(history: History, environment: Any) -> str:
    """The section of the page. `environment` is what `environment.json` holds, None without it."""
    left = "<h2>Summary</h2>" + table((), _facts(history, environment))
    right = _states(history) + _wall_time(history) + _speed(history)
    return f'<section class="columns"><div>{left}</div><div>{right}</div></section>'


def _facts(history: History, environment: Any) -> list[tuple[str, Any]]:
    """What the run was, what it reached and what it ran on, a line each."""
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
    for name, value in history.baselines.items():
        facts.append((f"without a model: {name}", history.objective.measure.show(value)))
    return facts + _runs_on(environment)


def _best(history: History) -> list[tuple[str, Any]]:
    """What the state that validation likes best reaches, where it was kept."""
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
    states = table(
        ("layer", "before", "after"),
        triples,
        numeric=(1, 2),
        bars=[(before / largest, after / largest) for _, before, after in triples],
    )
    return f'<h2>State of each layer</h2><div class="scroll">{states}</div><br>'


def _wall_time(history: History) -> str:
    """Where the wall time went."""
    seconds = dict(history.seconds)
    total = seconds.pop("total", None)
    if not seconds and total is None:
        return ""
    spent = {PHASES.get(name, name): value for name, value in seconds.items()}
    if total is not None and "train" in history.seconds:
        spent["everything else"] = max(0.0, total - sum(seconds.values()))
    longest = max([*spent.values(), 1e-9])
    rows = [(name, format_seconds(value)) for name, value in spent.items()]
    bars = [(value / longest, value / longest) for value in spent.values()]
    if total is not None:
        rows.append(("in all", format_seconds(total)))
    share = history.summary.get("host_share")
    if share is not None:
        rows.append(("of that neither training nor evaluation", f"{share:.1%}"))
    waited = history.summary.get("data_share")
    if waited is not None:
        rows.append(("of training, waiting for batches", f"{waited:.2%}"))
    return "<h2>Wall time</h2>" + table((), rows, numeric=(1,), bars=bars) + "<br>"


def _speed(history: History) -> str:
    """The steps per second of each phase."""
    phases = [
        (
            f"{phase['from_step']} to {phase['to_step']}",
            sum(phase["d_state"]),
            sum(phase.get("width", phase["d_state"])),
            "not measured" if not phase["steps_per_second"] else f"{phase['steps_per_second']:.4g}",
        )
        for phase in history.phases
    ]
    if not phases:
        return ""
    return "<h2>Speed</h2>" + table(
        ("steps", "states", "in programs for", "steps/s"), phases, numeric=(1, 2, 3)
    )


def _runs_on(environment: Any) -> list[tuple[str, str]]:
    """What the environment file says, a line for each of its keys."""
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
