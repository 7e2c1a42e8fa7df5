#!/usr/bin/env python3
"""Cut a pretrained Mamba or Mamba-2 (Hugging Face's format) on a calibration text.

scripts/shrink.py --checkpoint FOLDER --text FILE --tolerance 0.1 --out SMALLER
"""

import shutil
import sys
from pathlib import Path
from typing import Any


def main(argv: list[str]) -> int:
    """Run the command line `argv`; the exit code."""
    print((__doc__ or "").splitlines()[0], flush=True)  # what follows takes seconds to import
    from rich.console import Console

    from training.commands.shrink import read_tokens, shrink_language_model
    from training.reporting.bars import progress_bars
    from training.run.placement import check_devices
    from training.settings.errors import check_new
    from training.settings.help import Help
    from zoo.pretrained.checkpoint import load, read_config, save
    from zoo.pretrained.text import BYTES, TOKENIZER, copy_text_files, text_of

    try:
        options = _options(argv)
        if options.out is not None:
            check_new("--out", options.out)
        check_devices()
        model = load(options.checkpoint)
        has_tokenizer = (options.checkpoint / TOKENIZER).is_file()
        reader = text_of(options.checkpoint, model.vocabulary) if has_tokenizer else None
        tokens = read_tokens(model.vocabulary, options.text, options.tokens, reader=reader)
        with progress_bars(Console()) as progress:
            shrunk = shrink_language_model(
                model,
                tokens,
                tau=options.tolerance,
                rank=options.rank,
                guard=options.guard,
                sequences=options.sequences,
                length=options.length,
                generated=options.generate,
                seed=options.seed,
                work=options.out and _work(options.out),
                progress=progress,
            )
    except Help as help:
        print(help)
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    before, after = shrunk.before, shrunk.after
    unit = "byte" if model.vocabulary == BYTES else "token"
    print(shrunk.plan)
    print(f"parameters    {before.parameters:>12} -> {after.parameters}")
    print(f"bits per {unit:<5}{before.bits:>11.4f} -> {after.bits:.4f}")
    print(f"perplexity    {2**before.bits:>12.3f} -> {2**after.bits:.3f}")
    print(f"tokens/s      {before.tokens_per_second:>12.1f} -> {after.tokens_per_second:.1f}")
    if options.out is not None:
        small = shrunk.model
        del model, shrunk  # writing takes as much memory as the whole model
        save(options.out, small, config=read_config(options.checkpoint))
        copy_text_files(options.checkpoint, options.out)
        shutil.rmtree(_work(options.out), ignore_errors=True)
        print(f"saved in {options.out}")
    return 0


def _work(out: Path) -> Path:
    """The folder with the recordings of an interrupted run."""
    return out.with_name(f"{out.name}.partial")


def _options(argv: list[str]) -> Any:
    from training.settings.parser import Parser

    parser = Parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="folder with config.json and model.safetensors",
    )
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument(
        "--text", type=Path, help="text, read by the checkpoint's tokenizer.json, else as bytes"
    )
    text.add_argument("--tokens", type=Path, help="text as token numbers (.npy)")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument(
        "--tolerance", type=float, help="share of the sum of HSVs that may be dropped"
    )
    size.add_argument("--rank", type=int, help="states of each layer")
    parser.add_argument(
        "--guard",
        type=float,
        help="largest rise of the loss by the cut [nats per token], on separate text",
    )
    parser.add_argument("--out", type=Path, help="folder for the smaller checkpoint")
    parser.add_argument(
        "--sequences", type=int, default=32, help="pieces of text for weighing the states"
    )
    parser.add_argument("--length", type=int, default=256, help="tokens of a piece")
    parser.add_argument(
        "--generate", type=int, default=128, help="tokens to generate for the speed"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the pieces")
    return parser.read(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
