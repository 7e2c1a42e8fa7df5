"""Train a model of the zoo on a task, compressing it on the way. `--help` lists the options."""

import sys

from rich.console import Console

from training.app import execute
from training.cli import UsageError, parse_command
from training.loop import Diverged, Interrupted


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    console = Console()
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
