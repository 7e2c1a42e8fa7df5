#!/usr/bin/env python3
"""Run a study: many training runs, and the table and figures made of them.

scripts/reproduce.py smnist --data-dir FOLDER_WITH_MNIST
scripts/reproduce.py --list
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from training.reporting.words import format_seconds
from training.settings.errors import UsageError
from training.studies import STUDIES
from training.studies.app import StudyCommand, execute_study
from training.studies.runner import SHARED_GPU


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", choices=sorted(STUDIES))
    parser.add_argument("--list", action="store_true", help="list the studies and their questions")
    parser.add_argument("--scale", choices=("cpu", "paper"), default="cpu")
    parser.add_argument("--seeds", type=int, help="seeds 0 to K-1 (default: the study's number)")
    parser.add_argument("--resume", action="store_true", help="finish a study that was stopped")
    parser.add_argument(
        "--again",
        action="store_true",
        help="all runs anew, beside those that the repository holds: in runs/again/STUDY",
    )
    parser.add_argument("--data-dir", type=Path, help="folder with the task's official files")
    parser.add_argument("--out", type=Path, help="results (default: results/STUDY)")
    parser.add_argument("--runs", type=Path, help="run directories (default: runs/studies/STUDY)")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a GPU, or a core)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="do the runs on the Dask cluster with this scheduler"
    )
    parser.add_argument("--only", nargs="+", help="these variants alone, with what they need")
    parser.add_argument("--yes", action="store_true", help="start without asking")
    options = parser.parse_args(argv)
    console = Console()
    if options.list:
        table = Table("study", "runs", "question")
        for study in STUDIES.values():
            table.add_row(study.name, f"{len(study.variants)} x {study.seeds}", study.question)
        console.print(table)
        return 0
    if options.study is None:
        parser.error("which study? --list shows them")
    command = StudyCommand(
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
    )
    try:
        outcome = execute_study(command, console)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; go on with the same command and --resume", file=sys.stderr)
        return 130
    for name, why in outcome.failed.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    if outcome.folder is None:
        console.print("not started")
        return 0
    console.print(f"{outcome.folder / 'table.md'} after {format_seconds(outcome.seconds)}")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    os.environ.update(SHARED_GPU)  # which is its runs'; this process only asks what there is
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
    sys.exit(main(sys.argv[1:]))
