#!/usr/bin/env python3
"""Train a model of the zoo on a task, with compression during training. `--help` lists the most
important options, `--help-all` all options, `--list` the presets of all tasks.
"""

import os
import sys


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print(FIRST_LINE, flush=True)  # what follows takes seconds to import
    if any(argument.startswith("--coordinator") for argument in argv):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # a lost process is one line
    from rich.console import Console

    from training.commands.train import execute
    from training.run.interrupt import Diverged, Interrupted, leave, stop_on_sigterm
    from training.run.together import PeerLost, alert
    from training.settings.command import parse_command
    from training.settings.errors import UsageError
    from training.settings.help import Help

    stop_on_sigterm()
    console = Console()
    if argv == ["--list"]:
        _list_presets(console.width)
        return 0
    try:
        command = parse_command(argv)
        with alert(str(command.out)):
            folder = execute(command, console)
    except Help as help:
        print(help)
        return 0
    except (UsageError, Diverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, PeerLost) as error:  # a disk that is full, say
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return leave(1)
    except Interrupted as stop:
        say = f"{stop}; continue with: scripts/train.py --resume {stop.folder}"
        console.print(say, soft_wrap=True)
        return leave(128 + stop.number)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    return 0


FIRST_LINE = "Train a state-space model that shrinks while it trains."


def _list_presets(width: int) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from training.settings.presets import preset_rows

    header, rows = preset_rows()
    table = Table(*header, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*row)
    # wider than many a terminal: a cut line can be scrolled to, a squeezed table not be read
    Console(width=max(width, LIST_WIDTH)).print(table, soft_wrap=True)


LIST_WIDTH = 170
"""Characters that the table of settings needs."""


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
