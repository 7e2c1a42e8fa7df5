"""The table of a report with the effect of every shrink on every layer."""

from typing import Any

from .figures import source_of
from .history import History
from .page import escape, format_short, section, table
from .words import format_seconds

HEAD = (
    "step",
    "layer",
    "states",
    "weighed by",
    "error bound",
    "measured error",
    "least possible error",
    "loss",
    "plan",
    "cut",
    "compile",
)
_NUMERIC = (*range(4, len(HEAD)),)
_CAPTION = (
    "Errors are gains from a layer's input to its output (H-infinity norms). The bound is twice "
    "the sum of the dropped values σ by white noise. It holds for balanced truncation only: where "
    "data weighs the states there is no bound, and the error is measured. No system of so few "
    "states comes closer than the least possible error. Losses are those on the calibration "
    "sequences just before and just after the cut. Plan, cut and compile are wall times."
)


def shrink_table(history: History) -> str:
    """The section of the page; nothing for a run that never tried to shrink."""
    rows = [row for event in history.shrinks for row in _rows(history, event)]
    if not rows:
        return ""
    content = table(HEAD, rows, _NUMERIC, wide=True)
    return section("Shrinks", f"{content}<figcaption>{escape(_CAPTION)}</figcaption>")


def _rows(history: History, event: Any) -> list[tuple[Any, ...]]:
    """A row for each layer that was cut, and one for those that were not."""
    seconds = [event["plan_seconds"], event["compress_seconds"], history.compile_seconds(event)]
    times = ["–" if t is None else format_seconds(t) for t in seconds]
    cut = [row for row in event["layers"] if row["after"] != row["before"]]
    if not cut:
        return [(event["step"], "nothing was cut", *["–"] * 6, *times)]
    losses = f"{format_short(event['loss_before'])} → {format_short(event['loss_after'])}"
    rows = []
    for i, row in enumerate(cut):
        shared = [losses, *times] if i == 0 else [""] * 4
        rows.append((event["step"], row["path"], *_cells(row), *shared))
    spared = [row["path"] for row in event["layers"] if row["after"] == row["before"]]
    if spared:
        names = ", ".join(spared) if len(spared) <= 3 else f"{len(spared)} layers"
        rows.append((event["step"], f"{names}: not cut", *[""] * (len(HEAD) - 2)))
    return rows


def _cells(row: Any) -> tuple[str, ...]:
    """States, their weighing, and the errors of one layer that was cut."""
    bounded = row.get("bounded", row.get("holds") is not False) and row["bound"] is not None
    return (
        f"{row['before']} → {row['after']}",
        row.get("gramians", source_of(row)),
        format_short(row["bound"]) if bounded else "no bound",
        format_short(row["error"], "not measured"),
        format_short(row["sigma_next"], "–"),
    )
