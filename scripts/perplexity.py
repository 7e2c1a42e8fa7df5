#!/usr/bin/env python3
"""Measure the perplexity of a pretrained Mamba or Mamba-2 on a text.

scripts/perplexity.py --checkpoint FOLDER --text FILE
"""

import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from rich.console import Console

    from training.commands.shrink import judge_language_model, read_tokens
    from training.reporting.bars import progress_bars
    from training.run.placement import check_devices
    from training.settings.help import Help
    from training.settings.parser import Parser
    from zoo.pretrained import load
    from zoo.pretrained.text import text_of

    parser = Parser(__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="folder with config.json and safetensors"
    )
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", type=Path, help="text, read by the checkpoint's tokenizer.json")
    text.add_argument("--tokens", type=Path, help="token numbers of a text (.npy)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a piece")
    parser.add_argument("--pieces", type=int, help="pieces to evaluate (default: all)")
    console = Console()
    try:
        options = parser.read(argv)
        check_devices()
        model = load(options.checkpoint)
        reader = text_of(options.checkpoint, model.vocabulary) if options.text else None
        tokens = read_tokens(model.vocabulary, options.text, options.tokens, reader=reader)
        with progress_bars(console) as progress:
            bits = judge_language_model(
                model, tokens, length=options.length, judged=options.pieces, progress=progress
            )
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"bits per token {bits:.4f}, perplexity {2**bits:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
