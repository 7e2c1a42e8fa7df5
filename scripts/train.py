"""Train a model of the zoo on a task, compressing it on the way.

`--help` lists the options, `--list` the settings that every task starts with.
"""

import sys

from rich.console import Console
from rich.table import Table

from training.app import execute
from training.cli import UsageError, parse_command
from training.loop import Diverged, Interrupted
from training.presets import preset_rows


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    console = Console()
    if argv == ["--list"]:
        header, rows = preset_rows()
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
