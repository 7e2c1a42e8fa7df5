"""A study's finished runs as rows: a variant each, over its seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.objective import OBJECTIVES, Measure
from .study import Scale, Study, Variant, final_state

Record = Mapping[str, Any]
Records = Mapping[str, Record]
"""The records of finished runs, by name."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (of a sample; NaN for one value) over seeds."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """NaN where there are no values."""
        mean = statistics.fmean(values) if values else math.nan
        return cls(mean, statistics.stdev(values) if len(values) > 1 else math.nan)

    def text(self, digits: int) -> str:
        """The mean ± the deviation, if they exist."""
        numbers = [x for x in (self.mean, self.deviation) if not math.isnan(x)]
        return " ± ".join(f"{x:z.{digits}f}" for x in numbers) or "–"


@dataclass(frozen=True)
class Row:
    """A variant over its seeds."""

    variant: Variant
    seeds: tuple[int, ...]
    states: Spread
    """Final state, mean over the layers."""
    score: Spread
    """Test accuracy, %."""
    seconds: Spread
    """Whole wall time of a run: data, compilation, training, evaluation, reduction, report; of
    those that stayed on one machine, as in what follows."""
    speedup: Spread
    """Wall time of the reference over that of this variant, seed by seed."""
    step_speedup: Spread
    """Steps per second at the end over those of the reference at its end, seed by seed; of those
    that were trained."""

    as_published: Spread
    """The score of ten seeds at scale `cpu` as published figures are made, at the best validation
    step and of the best three; of no runs otherwise."""


PUBLISHED_SEEDS, PUBLISHED_BEST = 10, 3
"""The published figures are means over the best 3 of 10 seeds."""


def rows_of(study: Study, records: Records, scale: Scale = "cpu") -> list[Row]:
    """A row for every variant with a finished run, in the study's order.

    At scale `paper`, scores are those at the best validation step, if the runs have it, and with
    ten seeds those of the best three, as published.
    """
    rows = []
    for variant in study.variants:
        name = variant.reference or study.reference
        reference = {r["seed"]: r for r in records.values() if r["variant"] == name}
        runs = sorted(
            (r for r in records.values() if r["variant"] == variant.name), key=lambda r: r["seed"]
        )
        if not runs:
            continue
        timed = [r for r in runs if has_times(r)]
        trained = variant.cut_from is None
        beside = [
            (r, ref)
            for r in timed
            if (ref := reference.get(r["seed"])) and hardware(r) == hardware(ref)
        ]
        rows.append(
            Row(
                variant=variant,
                seeds=tuple(r["seed"] for r in runs),
                states=Spread.of([final_state(r["summary"]) for r in runs]),
                score=Spread.of(_scores(runs, scale)),
                seconds=Spread.of([wall_seconds(r) for r in timed]),
                speedup=Spread.of([wall_seconds(ref) / wall_seconds(r) for r, ref in beside]),
                step_speedup=Spread.of(
                    [last_rate(r) / last_rate(ref) for r, ref in beside if trained]
                ),
                as_published=Spread.of(_as_published(runs, scale)),
            )
        )
    return rows


def score_of(record: Record, at: str = "last") -> float:
    """Test accuracy in %, or the task's main measure, at the last step or, with "best", at the best
    validation step if the run has it.
    """
    measure, summary = measure_of(record), record["summary"]
    told = summary["best"] if at == "best" and is_best_told(record) else summary
    value = told["test"][measure.key]
    return 100 * value if measure.is_share else value


def is_best_told(record: Record) -> bool:
    """Whether a run has its measures at its best validation step."""
    return "best" in record["summary"]


def are_best_seeds(seeds: Sequence[int], scale: Scale) -> bool:
    """Whether the score over these seeds is that of the best three: of ten, at scale `paper`."""
    return scale == "paper" and len(seeds) == PUBLISHED_SEEDS


def _scores(runs: Sequence[Record], scale: Scale) -> list[float]:
    scores = [score_of(run, "best" if scale == "paper" else "last") for run in runs]
    if not are_best_seeds([run["seed"] for run in runs], scale):
        return scores
    best_first = sorted(scores, reverse=measure_of(runs[0]).higher_is_better)
    return best_first[:PUBLISHED_BEST]


def _as_published(runs: Sequence[Record], scale: Scale) -> list[float]:
    seeds = [run["seed"] for run in runs]
    told = scale == "cpu" and are_best_seeds(seeds, "paper") and all(map(is_best_told, runs))
    return _scores(runs, "paper") if told else []


def measure_of(record: Record) -> Measure:
    """The main measure of a run's task."""
    return OBJECTIVES[record["summary"].get("kind", "classification")].measure


def score_name(records: Records) -> str:
    """`test accuracy, %`, or the name of these runs' score."""
    measures = {measure_of(record) for record in records.values()}
    return " or ".join(sorted(f"test {m.label}" + ", %" * m.is_share for m in measures))


def has_times(record: Record) -> bool:
    """Whether a run's times can be compared: its machine stayed the same, and did nothing else."""
    return not moved(record) and not record["environment"].get("shared")


def moved(record: Record) -> bool:
    """Whether a run was resumed on another machine or with other versions, so that its times are
    not comparable."""
    return bool(record["environment"].get("resumed"))


def what_moved(record: Record) -> set[str]:
    """The entries of a run's environment that changed between its start and its end."""
    first = {k: v for k, v in record["environment"].items() if k != "resumed"}
    later = record["environment"].get("resumed", [])
    return {name for each in later for name in first | each if each.get(name) != first.get(name)}


def hardware(record: Record) -> tuple[str | int, ...]:
    """The hardware of a run; speeds on different hardware are not compared."""
    environment = record["environment"]
    return environment["processor"], environment["cores"], *environment["devices"]


def wall_seconds(record: Record) -> float:
    """Whole wall time of a run, and of the one that it learned from or was cut from."""
    return record["seconds_before"] + record["summary"]["seconds"]["total"]


def last_rate(record: Record) -> float:
    """Steps per second in the last phase."""
    return record["summary"]["phases"][-1]["steps_per_second"]
