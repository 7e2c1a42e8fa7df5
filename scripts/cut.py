#!/usr/bin/env python3
"""Cut the model of a finished run after its training, and measure the result.

scripts/cut.py --run runs/NAME --rank 28 --method data --out runs/NAME-28
"""

import sys
from argparse import BooleanOptionalAction
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from rich.console import Console

    from training.commands.cut import cut_run
    from training.commands.data import load_data
    from training.finished.load import check_run
    from training.reporting.report import write_report
    from training.run.compilation import use_compilation_cache
    from training.run.placement import check_devices
    from training.settings.config import CompressionConfig
    from training.settings.errors import check_cache, check_new
    from training.settings.help import Help
    from training.settings.methods import METHODS
    from training.settings.parser import Parser
    from training.settings.saved import read_config

    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory of a finished run")
    parser.add_argument("--rank", type=int, required=True, help="states that each layer keeps")
    parser.add_argument(
        "--mode",
        choices=("fixed", "budget"),
        default="fixed",
        help="{choices}: the rank is that of each layer, or of all on average",
    )
    parser.add_argument(
        "--method", choices=tuple(METHODS), default="data", help="method: {choices}"
    )
    parser.add_argument(
        "--calibration",
        type=int,
        default=CompressionConfig.calibration,
        help="training sequences for the method data and for the loss before and after",
    )
    parser.add_argument(
        "--maps",
        action=BooleanOptionalAction,
        help="whether layers that cannot absorb a change of basis get maps, with the method data; "
        "otherwise states are selected (default: the better choice for the kind of layer)",
    )
    parser.add_argument("--refit", action="store_true", help="fit C and D after the cut (data)")
    parser.add_argument(
        "--at",
        choices=("best", "last"),
        default="best",
        help="{choices}: the best step by validation, or the last step",
    )
    parser.add_argument("--out", type=Path, required=True, help="new run directory")
    try:
        options = parser.read(argv)
        check_new("--out", options.out)
        check_run(options.run)
        check_devices()
        config = read_config(options.run)
        compression = CompressionConfig(
            mode=options.mode,
            method=options.method,
            calibration=options.calibration,
            rank=options.rank,
            maps=options.maps,
            shrinks=1,
        )
        check_cache(config.cache_dir)
        use_compilation_cache(config.cache_dir)
        task = load_data(config)
        summary = cut_run(
            options.run, task, options.out, compression, refit=options.refit, at=options.at
        )
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    console = Console()
    console.print({name: summary[name] for name in ("layers", "validation", "test")})
    console.print(f"report: {write_report(options.out)}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
