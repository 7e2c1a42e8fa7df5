#!/usr/bin/env python3
"""Continue a text with a pretrained Mamba or Mamba-2.

scripts/generate.py --checkpoint FOLDER --prompt "The state of a system is"
"""

import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    # what follows takes seconds to import; standard output is the text alone
    print((__doc__ or "").splitlines()[0], file=sys.stderr, flush=True)
    from training.commands.generate import continued
    from training.run.placement import check_devices
    from training.settings.help import Help
    from training.settings.parser import Parser
    from zoo.pretrained import load
    from zoo.pretrained.text import text_of

    parser = Parser(__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="folder with config.json and safetensors"
    )
    parser.add_argument("--prompt", required=True, help="text to continue")
    parser.add_argument("--tokens", type=int, default=100, help="tokens to generate")
    parser.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest token")
    parser.add_argument(
        "--top-p", type=float, default=0.95, help="share of the probability that is drawn from"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the text")
    began = False
    try:
        options = parser.read(argv)
        check_devices()
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
        began = True
        print(options.prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        before = "\n" if began else ""
        print(f"{before}error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
