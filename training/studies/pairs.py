"""The table of a study over pairs of a model and a task: each way of cutting compared with none."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from ..reporting.events import write_atomically
from .rows import Record, Records, Spread, measure_of, score_of
from .study import Study, final_state

DIAL = 0.005
"""The loss that a run may end with: points of accuracy, or a share of another measure."""


def write_pairs(study: Study, records: Records, folder: Path) -> Path:
    """Write pairs.md to `folder`: a row for each pair, and what holds over all of them."""
    path = folder / "pairs.md"
    write_atomically(path, pairs_table(study, records))
    return path


def pairs_table(study: Study, records: Records) -> str:
    """The Markdown table, of the ways that have finished runs. A pair that lacks one has no numbers
    for it; pairs without whole models, or without the last way, are left out. The number of seeds
    is that of these two; a change is taken over the seeds that both have."""
    whole, *all_ways = study.compares
    done = {record["variant"] for record in records.values()}
    ways = [w for w in all_ways if any(f"{pair} {w}" in done for pair in _pairs(study))]
    told = (": states", "", ": change")
    head = ["pair", "seeds", "states", whole, *(f"{way}{what}" for way in ways for what in told)]
    lines, shares, lost = [head, ["---"] * len(head)], {way: [] for way in ways}, []
    for pair in _pairs(study):
        runs = {way: _runs(records, f"{pair} {way}") for way in (whole, *ways)}
        if not ways or not runs[whole] or not runs[ways[-1]]:
            continue
        before = Spread.of([final_state(run["summary"]) for run in runs[whole]])
        seeds = min(len(runs[whole]), len(runs[ways[-1]]))
        lines.append([pair, str(seeds), before.text(0), _score(runs[whole])])
        for way in ways:
            if not runs[way]:
                lines[-1] += ["", "", ""]
                continue
            after = Spread.of([final_state(run["summary"]) for run in runs[way]])
            shares[way].append(after.mean / before.mean)
            change = Spread.of(_changes(runs[whole], runs[way]))
            lines[-1] += [after.text(1), _score(runs[way]), change.text(_digits(runs[way]))]
        if _loses(runs[whole], runs[ways[-1]]):
            lost.append(pair)
    text = ["| " + " | ".join(line) + " |" for line in lines]
    if not ways or not shares[ways[-1]]:
        return "\n".join([*text, ""])
    means = (
        f"{way} {statistics.geometric_mean(of_way):.2f}"
        + (f" (of {len(of_way)} pairs)" if len(of_way) < len(lines) - 2 else "")
        for way, of_way in shares.items()
    )
    held = f"`{ways[-1]}` is within {DIAL:.1%} of `{whole}` on the mean over the seeds"
    said = f"{held} for every pair." if not lost else f"{held}, but for {', '.join(lost)}."
    return "\n".join(
        [*text, "", f"Share of the states that stay, geometric mean: {', '.join(means)}.", said, ""]
    )


def _pairs(study: Study) -> list[str]:
    whole = f" {study.compares[0]}"
    return [v.name.removesuffix(whole) for v in study.variants if v.name.endswith(whole)]


def _runs(records: Records, variant: str) -> list[Record]:
    return [record for record in records.values() if record["variant"] == variant]


def _score(runs: Sequence[Record]) -> str:
    return Spread.of([score_of(run) for run in runs]).text(_digits(runs))


def _digits(runs: Sequence[Record]) -> int:
    return 2 if measure_of(runs[0]).is_share or score_of(runs[0]) > 1 else 5


def _changes(whole: Sequence[Record], cut: Sequence[Record]) -> list[float]:
    """Of each seed that both have, the score of the cut run less that of the whole one."""
    scores = {run["seed"]: score_of(run) for run in whole}
    return [score_of(run) - scores[run["seed"]] for run in cut if run["seed"] in scores]


def _loses(whole: Sequence[Record], cut: Sequence[Record]) -> bool:
    """Whether the mean over the seeds that both have is worse by more than the dial."""
    measure, change = measure_of(whole[0]), statistics.fmean(_changes(whole, cut))
    unit = 100 if measure.is_share else statistics.fmean(score_of(run) for run in whole)
    return (-change if measure.higher_is_better else change) > DIAL * unit
