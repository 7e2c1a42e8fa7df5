"""Conversion of text to the tokens of a checkpoint, and back."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from ..typing import checked

TOKENIZER = "tokenizer.json"

FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
)
"""Files of a checkpoint, beside its weights, for reading and writing text."""

BYTES = 256
"""The vocabulary of models that read bytes."""


@runtime_checkable
class Text(Protocol):
    """From text to tokens, and back."""

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """The tokens of a text."""
        ...

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of some tokens. Invalid bytes are shown as the replacement character."""
        ...


class ByteText:
    """Tokens are the bytes of the text."""

    @checked
    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """The bytes of the text in UTF-8."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    @checked
    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Inverse of `encode`."""
        return bytes(int(token) for token in tokens).decode(errors="replace")


class TokenizerText:
    """Tokens by the rules in a `tokenizer.json`, read by the package tokenizers."""

    @checked
    def __init__(self, path: Path):
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise ValueError(
                f"{path} is read by the package tokenizers, which is missing: pip install "
                "'compressm-zoo[text]'"
            ) from None
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing more precise
            raise ValueError(f"{path} must be a tokenizer, got: {error}") from None
        self._path = path

    @checked
    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """The tokens of the text, with none added at its ends."""
        try:
            tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # a token for unknown words that the vocabulary lacks, say
            raise ValueError(f"{self._path} must read every text, got: {error}") from None
        return np.array(tokens, np.int32)

    @checked
    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of the tokens, without special ones."""
        return self._tokenizer.decode([int(token) for token in tokens])


@checked
def text_of(folder: Path | str, vocabulary: int) -> Text:
    """The text reader of the checkpoint in `folder`: its tokenizer, or the 256 bytes. ValueError
    without `tokenizer.json` unless the vocabulary is that of bytes.
    """
    path = Path(folder) / TOKENIZER
    if path.is_file():
        return TokenizerText(path)
    if vocabulary != BYTES:
        raise ValueError(
            f"{path} is missing: a vocabulary of {vocabulary} tokens needs the checkpoint's own "
            f"{TOKENIZER} (only one of {BYTES} is read as bytes)"
        )
    return ByteText()


@checked
def copy_text_files(source: Path | str, target: Path | str) -> None:
    """Copy the files for reading and writing text from `source` to `target`."""
    for name in FILES:
        if (Path(source) / name).is_file():
            shutil.copyfile(Path(source) / name, Path(target) / name)
