#!/usr/bin/env python3
"""Lets a pretrained Mamba or Mamba-2 go on from a text.

scripts/generate.py --checkpoint FOLDER --prompt "The state of a system is"
"""

import argparse
import sys
from pathlib import Path

from training.commands.generate import continued
from zoo.pretrained import load
from zoo.pretrained.text import text_of


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="folder with config.json and safetensors"
    )
    parser.add_argument("--prompt", required=True, help="text to go on from")
    parser.add_argument("--tokens", type=int, default=100, help="tokens that are written")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest token")
    parser.add_argument(
        "--top-p", type=float, default=0.95, help="share of the probability that is drawn from"
    )
    parser.add_argument("--seed", type=int, default=0, help="which text")
    options = parser.parse_args(argv)
    try:
        model = load(options.checkpoint)
        pieces = continued(
            model,
            text_of(options.checkpoint, model.vocabulary),
            options.prompt,
            tokens=options.tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed,
        )
        print(options.prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
    except (ValueError, OSError) as error:
        print(f"\nerror: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
