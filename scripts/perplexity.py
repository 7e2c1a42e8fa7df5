#!/usr/bin/env python3
"""Measures how well a pretrained Mamba or Mamba-2 foretells a text.

scripts/perplexity.py --checkpoint FOLDER --text FILE
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from training.commands.shrink import judge_language_model, read_tokens
from training.reporting.bars import progress_bars
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
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", type=Path, help="text, read by the checkpoint's tokenizer.json")
    text.add_argument("--tokens", type=Path, help="token numbers of a text (.npy)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a piece")
    parser.add_argument("--pieces", type=int, help="pieces that are judged (default: all)")
    options = parser.parse_args(argv)
    console = Console()
    try:
        model = load(options.checkpoint)
        reader = text_of(options.checkpoint, model.vocabulary) if options.text else None
        tokens = read_tokens(model.vocabulary, options.text, options.tokens, reader=reader)
        with progress_bars(console) as progress:
            bits = judge_language_model(
                model, tokens, length=options.length, judged=options.pieces, progress=progress
            )
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"bits per token {bits:.4f}, perplexity {2**bits:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
