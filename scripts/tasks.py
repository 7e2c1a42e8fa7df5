#!/usr/bin/env python3
"""Prepares a task's data, or shows what is in it.

scripts/tasks.py prepare pathfinder --resolution 16 --contour-length 3
scripts/tasks.py inspect digits --picture digits.png
scripts/tasks.py inspect imdb --data-dir FOLDER
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

from data import TASKS, Task, import_builders, load_task, task_entry
from data.readers.named import OWN
from data.sheet import write_sheet
from training.settings.plugins import import_plugins


def main(arguments: list[str]) -> None:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(
        "--plugin",
        action="append",
        default=[],
        help="Python file or module that registers tasks; may be repeated",
    )
    import_plugins(first.parse_known_args(arguments)[0].plugin)
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
        parents=[first],
    )
    parser.add_argument("command", choices=("prepare", "inspect"), nargs="?")
    parser.add_argument("task", nargs="?", help=f"{', '.join(TASKS)}, {OWN}")
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
    import_builders()
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
        f"{task.name} ({task.kind}): {task.length} steps of {task.input_size} "
        f"{'channels' if task.input_kind == 'real' else 'tokens'}, {task.outputs} "
        f"{ASKED[task.kind][0]}"
    )
    table = Table("split", "samples", "inputs", "lengths", _labels_title(task))
    for name, split in task.splits.items():
        stored = f"{split.inputs.dtype} {list(split.inputs.shape)}"
        lengths = "all the same"
        if split.lengths is not None:
            low, middle, high = np.quantile(split.lengths, (0, 0.5, 1)).astype(int)
            lengths = f"{low} to {high}, median {middle}"
        # training windows of text begin at every token: each token once
        every = task.length if task.kind == "language" and name == "train" else 1
        labels = _labels(task, split.labels[::every])
        table.add_row(name, str(len(split)), stored, lengths, labels)
    console.print(table)
    for name, value in task.baselines.items():
        console.print(f"{ASKED[task.kind][1]} of {name} alone: {value:.3f}")
    for note in task.notes:
        console.print(note)


ASKED = {
    "classification": ("classes", "test accuracy"),
    "pair": ("classes", "test accuracy"),
    "multilabel": ("labels", "test accuracy"),
    "values": ("values", "test mean squared error"),
    "regression": ("values at each step", "test mean squared error"),
    "language": ("tokens that may follow", "test bits per token"),
    "recall": ("tokens that may be asked for", "test accuracy"),
}
"""What is asked by each kind of task, and the measure of its baselines."""


VALUED = ("values", "regression")
"""Kinds that ask for values."""


def _labels_title(task: Task) -> str:
    if task.classes is not None:
        return "samples of each label"
    return "mean of each value" if task.kind in VALUED else "commonest tokens"


def _labels(task: Task, labels: np.ndarray) -> str:
    """How often each label occurs; of many, the commonest; of values, their mean."""
    if task.kind in VALUED or labels.dtype == np.float32:
        means = labels.reshape(-1, labels.shape[-1]).mean(axis=0)
        return " ".join(f"{mean:.3f}" for mean in means[:6]) + (" ..." if len(means) > 6 else "")
    labels = labels[labels >= 0]  # of recall, where something is asked
    counts = np.bincount(labels, minlength=task.outputs)
    if task.classes is not None:
        return " ".join(map(str, counts))
    symbols = task.symbols or tuple(map(str, range(task.outputs)))
    commonest = np.argsort(-counts, kind="stable")[:6]
    return ", ".join(f"{symbols[i]!r} {counts[i] / labels.size:.1%}" for i in commonest)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
