"""A study from a command: check, estimate, run with progress, write the results."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.prompt import Confirm

from data import Task, default_cache_dir, import_builders, load_task

from ..reporting.events import write_json
from ..reporting.words import format_seconds
from ..run.compilation import use_compilation_cache
from ..settings.errors import UsageError, check_writable
from .cluster import cluster_places
from .cost import estimate
from .pairs import write_pairs
from .record import RECORDS, finished_runs
from .runner import Active, Place, StudyRunner, hardware_slots
from .stability import moves_of, write_stability
from .study import Planned, Scale, Study, describe, plan_runs
from .summary import write_results


@dataclass(frozen=True)
class StudyCommand:
    """The parsed command of `scripts/reproduce.py`."""

    study: Study
    scale: Scale = "cpu"
    seeds: int | None = None
    resume: bool = False
    again: bool = False
    """Whether to repeat all runs, beside the records in the repository."""
    data_dir: Path | None = None
    out: Path | None = None
    runs: Path | None = None
    jobs: int | None = None
    scheduler: str | None = None
    """Address of a Dask scheduler, whose workers do the runs; None: this machine does them."""
    only: list[str] | None = None
    ask: bool = True
    shared: bool = False
    """Whether the machine does other work beside the runs: no times are shown."""


@dataclass(frozen=True)
class StudyOutcome:
    """The results' folder and the failures."""

    folder: Path | None
    """None if the user declined to start the study."""
    failed: dict[str, str]
    seconds: float


def execute_study(command: StudyCommand, console: Console) -> StudyOutcome:
    """Run `command`. Raises `UsageError` before anything is run or written."""
    study = command.study
    seeds = study.seeds if command.seeds is None else command.seeds
    if seeds < 1:
        raise UsageError(f"--seeds must be 1 or more, got {seeds}")
    if command.jobs is not None and command.jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, got {command.jobs}")
    folder, runs = _folders(command)
    planned = _chosen(plan_runs(study, command.scale, range(seeds), command.data_dir), command.only)
    with _places_of(command, len(planned)) as places:
        runner = StudyRunner(runs, folder / RECORDS, places, shared=command.shared)
        return _execute(command, console, planned, runner)


@contextmanager
def _places_of(command: StudyCommand, count: int) -> Iterator[Sequence[Place]]:
    """Where `count` runs are done: on this machine, or on a cluster."""
    if command.scheduler is None:
        yield hardware_slots(command.jobs)
    else:
        with cluster_places(command.scheduler, command.jobs or count) as places:
            yield places


def _execute(
    command: StudyCommand, console: Console, planned: list[Planned], runner: StudyRunner
) -> StudyOutcome:
    """Do the runs that are not done yet, and write the results."""
    started = time.perf_counter()
    study, folder, runs = command.study, runner.records.parent, runner.runs
    for option, place in (("--out", folder), ("--runs", runs)):
        check_writable(option, place)
    done = finished_runs(runner.records)
    if not command.resume and (done or any(runner.runs.glob("*/config.yaml"))):
        raise UsageError(
            f"{study.name} was started before ({len(done)} runs finished, {runner.runs} holds the "
            f"others): continue with --resume, or {_elsewhere(command)}"
        )
    runner.check(planned)
    tasks = _prepared(planned, console)
    if command.scale == "paper" and not _agreed(
        command, planned, done, tasks, len(runner.places), console
    ):
        return StudyOutcome(None, {}, time.perf_counter() - started)
    with _Progress(console, planned, len([r for r in planned if r.name in done])) as progress:
        runner.run(planned, progress.report)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "study.json", describe(study, command.scale))
    records = finished_runs(runner.records)
    write_results(study, command.scale, records, folder)
    if study.compares:
        write_pairs(study, records, folder)
    kept = {
        name: runner.runs / name
        for name in records
        if any((runner.runs / name / "systems").glob("*.npz"))
    }
    if kept:
        with console.status("following the singular values"):
            moves = {name: moves_of(run) for name, run in kept.items()}
            how = f"scripts/reproduce.py {study.name} --scale {command.scale}"
            write_stability(moves, folder, how)
    return StudyOutcome(folder, runner.failed, time.perf_counter() - started)


def _folders(command: StudyCommand) -> tuple[Path, Path]:
    """The folders of the results and of the run directories."""
    name = command.study.name + ("" if command.scale == "cpu" else f"-{command.scale}")
    if command.again:
        for option, place in (("--out", command.out), ("--runs", command.runs)):
            if place is not None:
                raise UsageError(f"--again and {option} {place} name two places: give one")
        folder = Path("runs") / "again" / name
        return folder, folder / "trained"
    folder = command.out or Path("results") / name
    return folder, command.runs or Path("runs") / "studies" / name


def _elsewhere(command: StudyCommand) -> str:
    """How to begin a study anew that was begun before."""
    if command.again:
        return "choose --out and --runs instead of --again"
    if command.out is None and command.runs is None:
        return "repeat all runs with --again"
    return "choose another --out and --runs"


def _chosen(planned: list[Planned], only: list[str] | None) -> list[Planned]:
    """The runs of these variants, and those that they need."""
    if only is None:
        return planned
    names = [run.variant.name for run in planned]
    wanted = set(only)
    for name in only:
        if name not in names:
            there = ", ".join(dict.fromkeys(names))
            raise UsageError(f"--only must be some of {there}, got {name!r}")
    for run in reversed(planned):
        if run.variant.name in wanted:
            wanted |= set(run.variant.needs)
    return [run for run in planned if run.variant.name in wanted]


def _prepared(planned: list[Planned], console: Console) -> dict[str, Task]:
    """The tasks of the runs by their names."""
    first: dict[str, Planned] = {}
    for run in planned:
        first.setdefault(run.config.task, run)
    return {name: _prepare(run, console) for name, run in first.items()}


def _prepare(run: Planned, console: Console) -> Task:
    """Prepare the data once, before several runs need it, and find missing data early."""
    config = run.config
    import_builders()
    with console.status("preparing the data"):
        try:
            return load_task(
                config.task,
                config.data,
                data_dir=config.data_dir,
                cache_dir=config.cache_dir or default_cache_dir(),
            )
        except (ValueError, OSError) as error:
            raise UsageError(" ".join(str(error).split())) from error


def _agreed(
    command: StudyCommand,
    planned: list[Planned],
    done: dict[str, Any],
    tasks: dict[str, Task],
    slots: int,
    console: Console,
) -> bool:
    """Show the estimated cost of the published setting on this machine, and ask for
    confirmation."""
    use_compilation_cache(planned[0].config.cache_dir)
    with console.status("timing a few steps"):
        seconds = [
            estimate([run for run in planned if run.config.task == name], done, task, slots)
            for name, task in tasks.items()
        ]
    least, most = (format_seconds(sum(each)) for each in zip(*seconds, strict=True))
    left = len([run for run in planned if run.name not in done])
    console.print(
        f"{left} runs, {slots} at a time: {least if slots == 1 else f'{least} to {most}'} on this "
        "machine, before savings by compression"
    )
    if not command.ask:
        return True
    if not sys.stdin.isatty():
        raise UsageError("a study must be confirmed on a terminal: give --yes to start without one")
    return Confirm.ask("start?", console=console, default=False)


class _Progress:
    """A bar for the study and one for each run in progress; lines where there is no terminal."""

    def __init__(self, console: Console, planned: list[Planned], done: int):
        self._console, self._interactive = console, console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            disable=not self._interactive,
        )
        self._whole = self._bars.add_task("runs", total=len(planned), completed=done)
        self._each: dict[str, tuple[TaskID, Active]] = {}

    def __enter__(self) -> "_Progress":
        self._bars.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._bars.__exit__(*exception)

    def report(self, what: str, run: Active | None) -> None:
        """The callback of `StudyRunner.run`."""
        if run is None:
            for task, active in self._each.values():
                self._bars.update(task, completed=active.step())
            return
        name = run.planned.name
        if not self._interactive:
            self._console.print(f"{name}: {what}", soft_wrap=True)
        if what == "started":
            task = self._bars.add_task(f"  {name}", total=run.planned.config.steps)
            self._each[name] = task, run
        else:
            self._bars.remove_task(self._each.pop(name)[0])
            self._bars.advance(self._whole)
