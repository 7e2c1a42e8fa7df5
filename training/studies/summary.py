"""The results of a study: a Markdown table, a CSV table, and its run times."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ..reporting.events import write_atomically
from ..reporting.words import format_seconds
from .figures import write_figures
from .rows import (
    PUBLISHED_BEST,
    PUBLISHED_SEEDS,
    Record,
    Records,
    Row,
    are_best_seeds,
    has_times,
    is_best_told,
    moved,
    rows_of,
    score_name,
    what_moved,
)
from .study import Published, Scale, Study
from .style import FIGURES

BEST_SEEDS = f" (best {PUBLISHED_BEST} of {PUBLISHED_SEEDS})"
"""The note beside such a score."""


def write_results(study: Study, scale: Scale, records: Records, folder: Path) -> list[Path]:
    """Write table.md, table.csv and figures/ of `records` to `folder`; what was written."""
    rows = rows_of(study, records, scale)
    write_atomically(folder / "table.md", markdown(study, scale, rows, records))
    write_atomically(folder / "table.csv", comma_separated(rows))
    figures = write_figures(study, rows, records, folder / FIGURES)
    return [folder / "table.md", folder / "table.csv", *figures]


def markdown(study: Study, scale: Scale, rows: Sequence[Row], records: Records) -> str:
    """The Markdown table."""
    head = [
        "variant", "final state", "published", score_name(records) or "score",
        "best step, best 3 of 10", "published", "wall time, s", "speed-up, whole run",
        "speed-up, last steps", "seeds",
    ]  # fmt: skip
    lines = [f"# {study.name}, scale {scale}", "", study.question, ""]
    if scale == "cpu" and study.scaled_down:
        lines += [study.scaled_down, ""]
    cells = [head, ["---"] * len(head)]
    for row in rows:
        published = row.variant.published
        cells.append(
            [
                row.variant.name,
                row.states.text(1),
                "" if published.states is None else f"{published.states:g}",
                row.score.text(2) + (BEST_SEEDS if are_best_seeds(row.seeds, scale) else ""),
                row.as_published.text(2),
                "" if published.score is None else f"{published.score:g}",
                row.seconds.text(0),
                row.speedup.text(2),
                row.step_speedup.text(2),
                f"{len(row.seeds)}",
            ]
        )
    told = [
        not rows or any(set(column[1:]) - {"", "–"})
        for column in zip(head, *cells[2:], strict=True)
    ]
    for row in cells:
        shown = (cell for cell, is_told in zip(row, told, strict=True) if is_told)
        lines.append("| " + " | ".join(shown) + " |")
    lines += ["", *_notes(study, scale, rows, records), ""]
    return "\n".join(lines)


def comma_separated(rows: Sequence[Row]) -> str:
    """The CSV table: one line per variant."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ("states", "score", "seconds", "speedup", "step_speedup")
    writer.writerow(
        [
            "variant",
            "seeds",
            *(f"{name}_{what}" for name in numbers for what in ("mean", "std")),
            "published_states",
            "published_score",
        ]
    )
    for row in rows:
        spreads = [getattr(row, name) for name in numbers]
        writer.writerow(
            [
                row.variant.name,
                len(row.seeds),
                *(f"{x:.6g}" for spread in spreads for x in (spread.mean, spread.deviation)),
                row.variant.published.states,
                row.variant.published.score,
            ]
        )
    return text.getvalue()


def _notes(study: Study, scale: Scale, rows: Sequence[Row], records: Records) -> list[str]:
    runs = list(records.values())
    if not runs:
        return ["No run is finished."]
    spent = sum(r["summary"]["seconds"]["total"] for r in runs)
    timed = any(has_times(r) for r in runs)
    references = dict.fromkeys(f"`{row.variant.reference or study.reference}`" for row in rows)
    published = (row.variant.published != Published() for row in rows)
    machines = {
        f"{e['processor']}, {e['cores']} cores each, {', '.join(e['devices'])}, jax "
        f"{e['versions']['jax']}"
        for r in runs
        for e in (r["environment"], *r["environment"].get("resumed", []))
    }
    command = f"scripts/reproduce.py {study.name} --scale {scale}"
    times = (
        " Wall time is that of a whole run with data, compilation, evaluation and reduction, and "
        "with the training of a teacher or a larger model if there is one. Speed-ups are relative "
        f"to {' or '.join(references)} of the same seed."
    )
    return [
        "Mean ± standard deviation over seeds."
        + (times if timed else "")
        + (" Published figures are the paper's, at its setting." if any(published) else "")
        + _protocol(scale, rows, runs)
        + _moves(runs),
        "",
        f"{len(runs)} runs{f', {format_seconds(spent)} of run time in all' if timed else ''}. "
        f"{'; '.join(sorted(machines))}. Made by `{command}`.",
    ]


def _protocol(scale: Scale, rows: Sequence[Row], runs: Sequence[Record]) -> str:
    """A sentence on the step and the seeds of the table's scores."""
    if scale == "cpu":
        return ""
    told = [is_best_told(run) for run in runs]
    said = " Scores are those at the best validation step since the last cut"
    if not all(told):
        said = " Scores are those at the last step" if not any(told) else said + " (where recorded)"
    if any(are_best_seeds(row.seeds, scale) for row in rows):
        said += f", means of the best {PUBLISHED_BEST} where marked"
    return said + "."


def _moves(runs: Sequence[Record]) -> str:
    elsewhere = [r for r in runs if moved(r) and not r["environment"].get("shared")]
    if not elsewhere:
        return ""
    changed = sorted({name.replace("_", " ") for r in elsewhere for name in what_moved(r)})
    went, have = ("run was", "has") if len(elsewhere) == 1 else ("runs were", "have")
    return (
        f" {len(elsewhere)} {went} finished in another environment (what changed: "
        f"{', '.join(changed)}) and {have} no times."
    )
