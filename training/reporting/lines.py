"""An event of a run in one line of text."""

from ..model.objective import Objective
from .events import Event
from .words import (
    MOST_NAMED,
    format_count,
    format_measures,
    format_number,
    format_rate,
    format_seconds,
    format_sizes,
)


def line_about(event: Event, total: int | None, objective: Objective) -> str | None:
    """One line about `event`, or None for events without a line. `total` are the steps of the whole
    run, if known.
    """
    at = f"step {event['step']}" + (f"/{total}" if total is not None else "")
    match event["event"]:
        case "start":
            return _start(event, objective)
        case "train":
            return f"{at}  {_train(event, objective)}"
        case "eval":
            return (
                f"{at}  {event['split']} loss {format_number(event['loss'], '.4f')}  "
                f"{'  '.join(format_measures(event, objective))}  "
                f"({format_seconds(event['duration'])})"
            )
        case "shrink":
            return f"{at}  {_shrink(event)}"
        case "rollback":
            why = f": {event['why']}" if "why" in event else ""
            return (
                f"{at}  rolled back from step {event['from_step']}: states "
                f"{format_sizes(event['tried'])} did not hold, continuing with "
                f"{format_sizes(event['d_state'])}{why}"
            )
        case "best":
            return (
                f"{at}  best by validation: step {event['best_step']}, test "
                f"{'  '.join(format_measures(event['test'], objective))}"
            )
        case "look":
            return f"{at}  look: {event['decision']}: {event['why']}"
        case "compile":
            meanwhile = ", in the background" if event.get("background") else ""
            took = format_seconds(event["seconds"])
            return f"{at}  compiled the {event['what']} in {took}{meanwhile}"
        case "rehearsal" if event["error"] is not None:
            return f"{at}  the shrink could not be rehearsed: {event['error']}"
        case "takeover":
            failed = "" if event["error"] is None else f" (in the background: {event['error']})"
            sizes = format_sizes(event["d_state"])
            return f"{at}  training continues in programs for states {sizes}{failed}"
        case "resume" if event.get("damaged"):
            lost = ", ".join(map(str, event["damaged"]))
            return f"{at}  resumed; later checkpoints could not be read (steps {lost})"
        case name:
            return None if name not in _SHORT else f"{at}  {_SHORT[name]}"


_SHORT = {
    "checkpoint": "checkpoint saved",
    "resume": "resumed",
    "interrupt": "interrupted",
    "end": "finished",
}
"""The lines of events without numbers."""


def _start(event: Event, objective: Objective) -> str:
    sizes = format_sizes([layer["d_state"] for layer in event["layers"]])
    baselines = ", ".join(
        f"{name} {objective.measure.show(value)}"
        for name, value in event.get("baselines", {}).items()
    )
    return (
        f"{event['model']} on {event['task']}, seed {event['seed']}: "
        f"{format_count(event['parameters'])} parameters, states {sizes}, "
        f"{event['total_steps']} steps" + (f"; without a model: {baselines}" * bool(baselines))
    )


def _train(event: Event, objective: Objective) -> str:
    return (
        f"loss {format_number(event['loss'], '.4f')}  "
        f"{'  '.join(format_measures(event, objective))}  "
        f"lr {format_number(event['learning_rate'], '.2e')}  "
        f"lr ssm {format_number(event['learning_rate_ssm'], '.2e')}  "
        f"states {format_sizes(event['d_state'])}  "
        f"{format_rate(event['steps_per_second'] or 0)} steps/s"
    )


def _shrink(event: Event) -> str:
    before, after = (format_number(event[f"loss_{when}"], ".4f") for when in ("before", "after"))
    if event.get("rejected"):
        return f"shrink to {format_sizes(event['rejected'])} rejected: loss {before} → {after}"
    cut = [row for row in event["layers"] if row["after"] != row["before"]]
    if not cut:
        return "shrink: nothing to cut"
    sizes = ", ".join(f"{row['path']} {row['before']} → {row['after']}" for row in cut)
    if len(cut) > MOST_NAMED:
        states = " → ".join(str(sum(row[key] for row in cut)) for key in ("before", "after"))
        sizes = f"{states} states in {len(cut)} of {len(event['layers'])} layers"
    seconds = event["plan_seconds"] + event["compress_seconds"]
    return f"shrink: {sizes}; loss {before} → {after}  ({format_seconds(seconds)})"


def verdict(
    closing: str, test: Event, before: list[int], after: list[int], objective: Objective
) -> str:
    """The result of a run in one line of up to 76 characters: its measure and its states.

    `test` is the event of the last evaluation on the test split, empty if there was none.
    """
    said = [closing]
    if test:
        measure = objective.measure
        said.append(f"test {measure.label} {measure.show(test.get(measure.key))}")
    if sum(before) and sum(after) != sum(before):
        said.append(f"{sum(before)} → {sum(after)} states")
    elif after:
        said.append(f"{sum(after)} states")
    return ", ".join(said)
