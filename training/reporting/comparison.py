"""Comparison of several runs on one page: curves on common axes, states, speed and accuracy.

The page is made from the same files as a run's own report (`training.reporting.report`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings.errors import UsageError, as_written
from ..settings.yaml import flat, read_yaml
from .comparison_figures import comparison_plates
from .events import write_atomically
from .history import History
from .page import escape, format_count, format_short, page, plate_section, section, table
from .words import format_seconds


@dataclass(frozen=True)
class Compared:
    """A run by the name of its folder."""

    name: str
    history: History
    config: Mapping[str, Any]
    """Its options, by their names on the command line."""


def compare_runs(folders: Sequence[Path], out: Path) -> Path:
    """Write one HTML page about the runs in `folders`; the page.

    `UsageError` for fewer than two runs, for folders without one, and for tasks of different kinds,
    whose measures share no axis.
    """
    if len(folders) < 2:
        raise UsageError(f"two runs or more must be given, got {len(folders)}")
    names = _names(folders)
    runs = [_read(folder, name) for folder, name in zip(folders, names, strict=True)]
    with as_written(Path(", ".join(map(str, folders))), "runs whose logs are as they wrote them"):
        content = _compared(runs)
    write_atomically(out, content)
    return out


def _compared(runs: Sequence[Compared]) -> str:
    """The page about these runs."""
    kinds = {run.history.objective.measure.label for run in runs}
    if len(kinds) > 1:
        raise UsageError(f"all runs must be judged by one measure, got {', '.join(sorted(kinds))}")
    title = f"{len(runs)} runs"
    plates = comparison_plates({run.name: run.history for run in runs})
    sections = [
        f"<h1>{title}</h1>",
        f'<p class="lead">{escape(_lead(runs))}</p>',
        _results(runs),
        *(plate_section(name, plate) for name, plate in plates.items()),
        _differences(runs),
    ]
    return page(title, sections, plates)


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The options that differ between `configs`, and their values; "" for a missing one. Paths of
    files are ignored.
    """
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [(name, [config.get(name, "") for config in configs]) for name in names]
    return [
        (name, values)
        for name, values in rows
        if name not in PLACES and any(value != values[0] for value in values)
    ]


PLACES = ("data_dir", "cache_dir")
"""Options that say where files are."""


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell the runs apart."""
    names = [folder.name or str(folder) for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> Compared:
    try:
        history = History.from_directory(folder)
    except (OSError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from None
    file = folder / "config.yaml"
    return Compared(name, history, flat(read_yaml(file)) if file.exists() else {})


def _lead(runs: Sequence[Compared]) -> str:
    titles = dict.fromkeys(run.history.title for run in runs)
    return "; ".join(titles)


def _results(runs: Sequence[Compared]) -> str:
    """The results of each run."""
    measure = runs[0].history.objective.measure
    head = [
        "run",
        f"test {measure.label}",
        "states",
        "parameters",
        "steps/s at the end",
        "wall time",
    ]
    rows = []
    for run in runs:
        history = run.history
        test, before, after = history.test, sum(history.sizes_before), sum(history.sizes_after)
        speed = history.phases[-1]["steps_per_second"] if history.phases else None
        total = history.seconds.get("total")
        rows.append(
            [
                run.name,
                "not measured" if test is None else measure.show(test.get(measure.key)),
                f"{before} → {after}" if before != after else str(after),
                format_count(history.summary.get("parameters_after") or history.get("parameters")),
                format_short(speed, "not recorded"),
                "not recorded" if total is None else format_seconds(total),
            ]
        )
    return section("Results", table(head, rows, numeric=range(1, len(head)), wide=True))


def _differences(runs: Sequence[Compared]) -> str:
    rows = differences([run.config for run in runs])
    if not rows:
        return section("Configuration", "<p>The runs have the same options.</p>")
    head = ["option", *(run.name for run in runs)]
    shown = [[name, *values] for name, values in rows]
    return section("Options that differ", table(head, shown, wide=True))
