"""Text as tokens: a byte is its own token."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8

from .task import Split
from .typing import checked

BYTES = tuple(
    chr(byte) if 32 <= byte < 127 or byte == 10 else f"\\x{byte:02x}" for byte in range(256)
)
"""The text of each byte. Padding is zeros; lengths are stored separately."""


@checked
def padded(text: bytes, length: int) -> tuple[UInt8[np.ndarray, " length"], np.int32]:
    """The first `length` bytes, padded with zeros, and their number."""
    row = np.zeros(length, np.uint8)
    cut = text[:length]
    row[: len(cut)] = np.frombuffer(cut, np.uint8)
    return row, np.int32(len(cut))


@checked
def token_splits(
    splits: Mapping[str, Mapping[str, np.ndarray]], tokens: str, lengths: str
) -> dict[str, Split]:
    """Prepared texts as splits; `tokens` and `lengths` are what these features are called."""
    return {
        name: Split(arrays[tokens], arrays["label"], lengths=arrays[lengths], input_kind="tokens")
        for name, arrays in splits.items()
    }


@checked
def show(tokens: Int[np.ndarray, " L"] | UInt8[np.ndarray, " L"], symbols: tuple[str, ...]) -> str:
    """Tokens as text."""
    return "".join(symbols[token] for token in tokens)
