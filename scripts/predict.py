#!/usr/bin/env python3
"""Write the predictions of a finished run's model for the sequences in a file.

scripts/predict.py --run runs/NAME --data new.npz --out predictions.csv
"""

import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from data.readers.sequences import FORMATS
    from training import load_run
    from training.commands.predict import SUFFIXES, predictions, read_inputs, write_predictions
    from training.run.compilation import use_compilation_cache
    from training.run.placement import check_devices
    from training.settings.errors import UsageError, check_writable
    from training.settings.help import Help
    from training.settings.parser import Parser

    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory of a finished run")
    parser.add_argument(
        "--data", type=Path, required=True, help=f"file of {' '.join(FORMATS)}, or a folder"
    )
    parser.add_argument("--out", type=Path, required=True, help=f"file, {' or '.join(SUFFIXES)}")
    parser.add_argument(
        "--scaled", action="store_true", help="values as the model was trained on them"
    )
    try:
        options = parser.read(argv)
        if options.out.suffix not in SUFFIXES:
            raise UsageError(f"--out must end in {' or '.join(SUFFIXES)}, got {options.out}")
        check_writable("--out", options.out.absolute().parent)
        check_devices()
        run = load_run(options.run)
        arrays = read_inputs(options.data, run)
        use_compilation_cache(run.config.cache_dir)
        found = predictions(run, arrays, scaled=options.scaled)
        write_predictions(options.out, found, arrays.get("lengths"), run.task)
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
