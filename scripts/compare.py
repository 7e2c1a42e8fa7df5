#!/usr/bin/env python3
"""Write one HTML page about several runs: curves, states, speed, differences.

scripts/compare.py runs/ONE runs/OTHER --out comparison.html
"""

import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from training.reporting.comparison import compare_runs
    from training.settings.errors import check_writable
    from training.settings.help import Help
    from training.settings.parser import Parser

    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    parser.add_argument("--out", type=Path, default=Path("comparison.html"), help="the page")
    try:
        options = parser.read(argv)
        check_writable("--out", options.out.absolute().parent)
        print(f"wrote {compare_runs(options.runs, options.out)}")
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
