#!/usr/bin/env python3
"""Run a study: many training runs, and their table and figures.

scripts/reproduce.py smnist --data-dir FOLDER_WITH_MNIST
scripts/reproduce.py --list
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from rich.console import Console

    from training.reporting.words import format_seconds
    from training.settings.errors import UsageError
    from training.settings.help import Help
    from training.studies.app import execute_study

    console = Console()
    try:
        command = _command(argv, console)
        if command is None:
            return 0
        outcome = execute_study(command, console)
    except Help as help:
        print(help)
        return 0
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; continue with the same command and --resume", file=sys.stderr)
        return 130
    for name, why in outcome.failed.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    if outcome.folder is None:
        console.print("not started")
        return 0
    console.print(f"{outcome.folder / 'table.md'} after {format_seconds(outcome.seconds)}")
    return 1 if outcome.failed else 0


def _command(argv: list[str], console: Any) -> Any:
    """The command in `argv`; None after `--list`."""
    from rich.table import Table

    from training.settings.errors import UsageError
    from training.settings.parser import Parser
    from training.studies import STUDIES
    from training.studies.app import StudyCommand
    from training.studies.runner import SHARED_GPU

    os.environ.update(SHARED_GPU)  # for its runs; this process only counts the devices
    parser = Parser(__doc__)
    parser.add_argument("study", nargs="?", choices=sorted(STUDIES), help="{choices}")
    parser.add_argument("--list", action="store_true", help="list the studies and their questions")
    parser.add_argument(
        "--scale", choices=("cpu", "paper"), default="cpu", help="size of the runs: {choices}"
    )
    parser.add_argument("--seeds", type=int, help="seeds 0 to N-1 (default: the study's number)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted study")
    parser.add_argument(
        "--again",
        action="store_true",
        help="repeat all runs in runs/again/STUDY, beside the repository's records",
    )
    parser.add_argument("--data-dir", type=Path, help="folder with the task's official files")
    parser.add_argument("--out", type=Path, help="results (default: results/STUDY)")
    parser.add_argument("--runs", type=Path, help="run directories (default: runs/studies/STUDY)")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one for each GPU or core)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="do the runs on the Dask cluster with this scheduler"
    )
    parser.add_argument("--only", nargs="+", help="only these variants, and those that they need")
    parser.add_argument(
        "--shared", action="store_true", help="the machine does other work too: show no times"
    )
    parser.add_argument("--yes", action="store_true", help="start without confirmation")
    options = parser.read(argv)
    if options.list:
        table = Table("study", "runs", "question")
        for study in STUDIES.values():
            table.add_row(study.name, f"{len(study.variants)} x {study.seeds}", study.question)
        console.print(table)
        return None
    if options.study is None:
        raise UsageError("the study must be named: --list shows them")
    return StudyCommand(
        study=STUDIES[options.study],
        scale=options.scale,
        seeds=options.seeds,
        resume=options.resume,
        again=options.again,
        data_dir=options.data_dir,
        out=options.out,
        runs=options.runs,
        jobs=options.jobs,
        scheduler=options.scheduler,
        only=options.only,
        ask=not options.yes,
        shared=options.shared,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    sys.exit(main(sys.argv[1:]))
