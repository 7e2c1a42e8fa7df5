#!/usr/bin/env python3
"""Train a model of the zoo on a task, compressing it on the way.

`--help` lists the options, `--list` the settings that every task starts with.
"""

import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from training.commands.train import execute
from training.run.interrupt import Diverged, Interrupted
from training.settings.cli import parse_command
from training.settings.errors import UsageError
from training.settings.presets import preset_rows


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    console = Console()
    if argv == ["--list"]:
        header, rows = preset_rows()
        table = Table(*header, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for row in rows:
            table.add_row(*row)
        # wider than many a terminal: a cut line can be scrolled to, a squeezed table not be read
        Console(width=max(console.width, LIST_WIDTH)).print(table, soft_wrap=True)
        return 0
    try:
        command = parse_command(argv)
        folder = execute(command, console)
    except (UsageError, Diverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        console.print(
            f"{stop}; go on with: scripts/train.py --resume {stop.folder}", soft_wrap=True
        )
        return 130
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return 0


LIST_WIDTH = 170
"""Characters that the table of settings needs."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
