"""The section of a report on the automatic mode: its decisions and their reasons."""

from .history import History
from .page import format_short, section, table
from .words import format_sizes

WHAT = {"wait": "nothing cut", "cut": "cut", "held": "the cut holds"}
"""The wording of the decisions."""


def looks_section(history: History) -> str:
    """The section of the page; empty for runs of other modes."""
    rows = []
    for event in history.events:
        if event["event"] == "look":
            losses = [format_short(event[name]) for name in ("loss", "trivial")]
            rows.append((event["step"], WHAT[event["decision"]], *losses, event["why"]))
        elif event["event"] == "rollback" and "why" in event:
            tried = f"taken back: {format_sizes(event['tried'])}"
            rows.append((event["step"], tried, format_short(event["measured"]), "", event["why"]))
    if not rows:
        return ""
    head = ("step", "what", "held-back loss", "loss of a constant answer", "why")
    said = (
        "The inspections of the automatic mode. The loss is measured on the same validation "
        "sequences every time."
    )
    drawn = table(head, rows, numeric=(0, 2, 3), wide=True)
    return section("Decisions and their reasons", f"{drawn}<p>{said}</p>")


def left_whole(history: History) -> str | None:
    """A sentence about a model that no look has cut; None without a look."""
    looks = history.named("look")
    if not looks:
        return None
    return (
        f"The model was inspected {len(looks)} times while it trained, and was not cut; at the "
        f"last inspection: {looks[-1]['why']}."
    )
