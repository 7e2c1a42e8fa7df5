#!/usr/bin/env python3
"""Writes the model of a finished run as portable StableHLO, or its step as ONNX, with a README.

scripts/export.py --run runs/NAME --out model.stablehlo
scripts/export.py --run runs/NAME --out step.onnx
"""

import argparse
import sys
from pathlib import Path

from training import load_run
from training.finished.export import written_files


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="finished run, or a model that was saved"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="file that ends in .stablehlo or .onnx"
    )
    options = parser.parse_args(argv)
    try:
        files = written_files(load_run(options.run), options.out)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for file in files:
        print(f"wrote {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
