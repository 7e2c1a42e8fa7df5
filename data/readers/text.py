"""Text and Markdown files as a language modelling task."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks import check_at_least, check_shares, reading
from ..store.places import Places
from ..task import Task, text_split
from ..text import BYTES

TOKENIZER = "tokenizer.json"
SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class TextConfig:
    """Text and Markdown files, concatenated in the order of their names.

    Tokens are bytes, or those of a `tokenizer.json` in the folder (Hugging Face's format).
    """

    length: int = 256
    """Tokens in a window."""
    validation: float = 0.05
    """Share of the tokens for validation, before those for testing."""
    test: float = 0.05
    """Share of the tokens for testing, at the end."""

    def __post_init__(self):
        check_at_least(self, length=1)
        check_shares(self)


def load_text(path: Path, config: TextConfig, places: Places) -> Task:
    """The text of a file, or of all files in a folder, as a task."""
    del places
    tokens, symbols = _tokens(path)
    first_test = len(tokens) - round(config.test * len(tokens))
    first_validation = first_test - round(config.validation * len(tokens))
    parts = {
        "train": tokens[:first_validation],
        "validation": tokens[first_validation:first_test],
        "test": tokens[first_test:],
    }
    for name, part in parts.items():
        if len(part) <= config.length:
            raise ValueError(
                f"split {name} must have more than length={config.length} tokens, got {len(part)}"
            )
    return Task(
        name=path.stem,
        kind="language",
        length=config.length,
        input_kind="tokens",
        input_size=len(symbols),
        splits={
            name: text_split(part, config.length, 1 if name == "train" else config.length)
            for name, part in parts.items()
        },
        symbols=symbols,
        baselines={"frequencies": _frequency_bits(parts["train"], parts["test"], len(symbols))},
    )


def read_text(path: Path, task: Task) -> dict[str, np.ndarray]:
    """`inputs` [n, length]: the text of a file or a folder, in pieces as long as those of `task`.

    A shorter text is one piece; what a last piece lacks is left away. ValueError for other tokens
    than those of the training.
    """
    tokens, symbols = _tokens(path)
    if task.symbols is not None and symbols != task.symbols:
        raise ValueError(
            f"{path} must be read as the {len(task.symbols)} tokens of the training, got "
            f"{len(symbols)} others: a folder with the same {TOKENIZER}, or without one for bytes"
        )
    if not len(tokens):
        raise ValueError(f"{path} must hold a token or more, got none")
    length = min(task.length, len(tokens))
    pieces = len(tokens) // length
    return {"inputs": tokens[: pieces * length].reshape(pieces, length)}


def _tokens(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The tokens of a file, or of all files in a folder, and how each token is shown."""
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    tokenizer = path / TOKENIZER
    if path.is_dir() and tokenizer.is_file():
        return _tokenized(files, tokenizer)
    return np.frombuffer(b"\n".join(file.read_bytes() for file in files), np.uint8), BYTES


def _tokenized(files: list[Path], tokenizer: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The tokens of all files, and the text of each token."""
    try:
        from tokenizers import Tokenizer  # optional: pip install compressm-zoo[text]
    except ImportError:
        raise ValueError(
            f"{tokenizer} needs the package tokenizers: pip install 'compressm-zoo[text]'"
        ) from None
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    with reading(tokenizer, "a tokenizer's file"):
        made = Tokenizer.from_file(str(tokenizer))
        tokens = [np.array(each.ids, np.int32) for each in made.encode_batch(texts)]
        numbers = range(made.get_vocab_size())
        symbols = tuple(made.decode([k]) or made.id_to_token(k) or "" for k in numbers)
    found = np.concatenate([np.zeros(0, np.int32), *tokens])
    if found.size and int(found.max()) >= len(symbols):
        raise ValueError(
            f"{tokenizer} must number its {len(symbols)} tokens from 0, got {int(found.max())}"
        )
    return found, symbols


def _frequency_bits(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """Bits per token of `test` by the frequencies in `train`, with one added to each count."""
    counts = np.bincount(train, minlength=size) + 1
    return float(-np.log2(counts / counts.sum())[test].mean())
