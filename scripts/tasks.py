"""Prepares a task's data, or shows what is in it.

scripts/tasks.py prepare pathfinder --resolution 16 --contour-length 3
scripts/tasks.py inspect digits --picture digits.png
"""

import argparse
import sys
from dataclasses import field, make_dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from data import TASKS, Task, load_task, task_entry
from data.sheet import write_sheet


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("command", choices=("prepare", "inspect"), nargs="?")
    parser.add_argument("task", choices=tuple(TASKS), nargs="?")
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.command is None or chosen.task is None:
        wants_help = {"-h", "--help"} & set(rest)
        parser.print_help(sys.stdout if wants_help else sys.stderr)
        sys.exit(0 if wants_help else 2)
    options = tyro.cli(
        _options(chosen.task), args=rest, prog=f"tasks.py {chosen.command} {chosen.task}"
    )
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task(f"loading {chosen.task}", total=None)
        task = load_task(
            chosen.task,
            options.config,
            data_dir=options.data_dir,
            cache_dir=options.cache_dir,
            progress=lambda done, total, what: bar.update(
                line, completed=done, total=total, description=what
            ),
        )
    if chosen.command == "inspect":
        _show(task, console)
    else:
        sizes = ", ".join(f"{len(split)} {name}" for name, split in task.splits.items())
        console.print(f"{task.name} is ready: {sizes}")
    if options.picture is not None:
        write_sheet({str(options.config): task}, options.picture)
        console.print(f"wrote {options.picture}")


def _options(task: str) -> type:
    """All options of one task: those of its config, and where things are."""
    config = tyro.conf.OmitArgPrefixes[task_entry(task).config_class]
    return make_dataclass(
        "Options",
        [
            ("config", config, field(default_factory=task_entry(task).config_class)),
            ("data_dir", Path | None, field(default=None)),
            ("cache_dir", Path | None, field(default=None)),
            ("picture", Path | None, field(default=None)),
        ],
    )


def _show(task: Task, console: Console) -> None:
    console.print(
        f"{task.name}: {task.length} steps of {task.input_size} "
        f"{'channels' if task.input_kind == 'real' else 'tokens'}, {task.classes} classes"
    )
    table = Table("split", "samples", "inputs", "samples of each label")
    for name, split in task.splits.items():
        histogram = np.bincount(split.labels, minlength=task.outputs)
        stored = f"{split.inputs.dtype} {list(split.inputs.shape)}"
        table.add_row(name, str(len(split)), stored, " ".join(map(str, histogram)))
    console.print(table)
    for name, accuracy in task.baselines.items():
        console.print(f"test accuracy of {name} alone: {accuracy:.3f}")
    for note in task.notes:
        console.print(note)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
