#!/usr/bin/env python3
"""Write the model of a finished run as StableHLO, or its step as ONNX.

scripts/export.py --run runs/NAME --out model.stablehlo
scripts/export.py --run runs/NAME --out step.onnx
"""

import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from training import load_run
    from training.finished.export import written_files
    from training.run.placement import check_devices
    from training.settings.errors import check_writable
    from training.settings.help import Help
    from training.settings.parser import Parser

    parser = Parser(__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, help="finished run, or a model that was saved"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="file that ends in .stablehlo or .onnx"
    )
    try:
        options = parser.read(argv)
        check_writable("--out", options.out.absolute().parent)
        check_devices()
        files = written_files(load_run(options.run), options.out)
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for file in files:
        print(f"wrote {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
