#!/usr/bin/env python3
"""Writes one HTML page about several runs: curves, states, speed, accuracy, what was different.

scripts/compare.py runs/ONE runs/OTHER --out comparison.html
"""

import argparse
import sys
from pathlib import Path

from training.reporting.comparison import compare_runs


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    parser.add_argument("--out", type=Path, default=Path("comparison.html"), help="the page")
    options = parser.parse_args(argv)
    try:
        print(f"wrote {compare_runs(options.runs, options.out)}")
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
