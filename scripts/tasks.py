#!/usr/bin/env python3
"""Prepare a task's data, or show its content.

scripts/tasks.py prepare pathfinder --resolution 16 --contour-length 3
scripts/tasks.py inspect digits --picture digits.png
scripts/tasks.py inspect imdb --help
"""

import sys
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console

    from data import Task


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from training.settings.help import Help

    try:
        _run(argv)
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _run(argv: list[str]) -> None:
    """Prepare or show the data that `argv` names."""
    from rich.console import Console

    from data.sheet import write_sheet

    command, name, config, places = _read(argv)
    console = Console()
    task = _load(name, config, places, console)
    if command == "inspect":
        _show(task, console)
    else:
        sizes = ", ".join(f"{len(split)} {part}" for part, split in task.splits.items())
        console.print(f"{task.name} is ready: {sizes}")
    if places.picture is not None:
        write_sheet({str(config): task}, places.picture)
        console.print(f"wrote {places.picture}")


def _read(argv: list[str]) -> tuple[str, str, Any, Any]:
    """The command, the task, its configuration, and where files are, as `argv` says."""
    from data import TASKS, task_entry
    from data.readers.named import OWN
    from training.settings.errors import UsageError, check_cache, check_writable
    from training.settings.help import Help, all_rows, option, shown_page
    from training.settings.options import read_options
    from training.settings.parser import Parser, asks_for_help
    from training.settings.plugins import import_plugins

    first = Parser(__doc__)
    first.add_argument(
        "--plugin",
        action="append",
        default=[],
        help="Python file or module that registers tasks; may be repeated",
    )
    chosen, rest = first.parse_known_args(argv)
    import_plugins(chosen.plugin)
    first.add_argument("command", choices=("prepare", "inspect"), nargs="?", help="{choices}")
    first.add_argument("task", nargs="?", help=f"{', '.join(TASKS)}, {OWN}")
    chosen, rest = first.parse_known_args(argv)
    if chosen.task is None:
        if asks_for_help(rest):
            first.read(rest)
        raise UsageError("usage: tasks.py prepare TASK, or tasks.py inspect TASK (--help)")
    config = task_entry(chosen.task).config_class()
    kind = _options(config)
    if asks_for_help(rest):
        (title, rows), *_ = all_rows(config, "").items()
        places = [(option(name, None), words) for name, words in PLACES.items()]
        raise Help(shown_page({title.removeprefix("run: "): [*rows, *places]}))
    options = read_options(kind, kind(**vars(config)), rest)
    check_cache(options.cache_dir)
    if options.picture is not None:
        check_writable("--picture", options.picture.absolute().parent)
    own = {each.name: getattr(options, each.name) for each in fields(config)}
    return chosen.command, chosen.task, type(config)(**own), options


PLACES = {
    "data_dir": "Folder with the task's official files.",
    "cache_dir": "Folder for prepared data.",
    "picture": "File for a picture of samples (.png).",
}
"""Where things are: the options that every task has."""


def _options(config: Any) -> type:
    """All options of one task: those of its configuration, and where things are."""
    own = [(each.name, each.type, field()) for each in fields(config)]
    return make_dataclass(
        "Options", [*own, *((name, Path | None, field(default=None)) for name in PLACES)]
    )


def _load(name: str, config: Any, places: Any, console: "Console") -> "Task":
    """The task with its data, prepared with a bar where that takes long."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from data import import_builders, load_task

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    import_builders()
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task(f"loading {name}", total=None)
        return load_task(
            name,
            config,
            data_dir=places.data_dir,
            cache_dir=places.cache_dir,
            progress=lambda done, total, what: bar.update(
                line, completed=done, total=total, description=what
            ),
        )


def _show(task: "Task", console: "Console") -> None:
    from rich.table import Table

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
    "language": ("possible next tokens", "test bits per token"),
    "recall": ("possible answers", "test accuracy"),
}
"""The labels of each kind of task, and the measure of its baselines."""


VALUED = ("values", "regression")
"""Kinds with values as labels."""


def _labels_title(task: "Task") -> str:
    if task.classes is not None:
        return "samples of each label"
    return "mean of each value" if task.kind in VALUED else "most frequent tokens"


def _labels(task: "Task", labels: np.ndarray) -> str:
    """The frequency of each label; for many labels, the most frequent ones; for values, their
    mean."""
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
    sys.exit(main(sys.argv[1:]))
