"""The tensorflow-datasets builder of a text, in blocks that keep their order."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ...store.builder import AbstractTaskBuilder, Records, tensor
from ...store.download import RemoteFile, download_all
from ...store.raw import read_bytes
from ...text import padded

FILE = RemoteFile(
    "input.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    1115394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
fetch = partial(download_all, "charlm", (FILE,))
_BLOCK = 4096


def find_files(place: Path) -> dict[str, Path]:
    """The text file `place`, or the only one in this folder."""
    if place.is_file():
        return {"text": place}
    texts = sorted([*place.glob("*.txt"), *place.glob("*.txt.gz")])
    if len(texts) != 1:
        raise FileNotFoundError(
            f"{place} must hold one text, *.txt, got "
            f"{', '.join(path.name for path in texts) or 'none'} (tinyshakespeare, say, from "
            f"{FILE.url})"
        )
    return {"text": texts[0]}


class CharLM(AbstractTaskBuilder):
    """A text in tokens. Settings: a `CharLMConfig`; source: `find_files`.

    The blocks of a split stand in the order of the text; `used` says how many tokens of a block
    count.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = "A text, to be read character by character."
    HOMEPAGE = "https://github.com/karpathy/char-rnn"
    CITATION = "Karpathy: The unreasonable effectiveness of recurrent neural networks. 2015."

    @property
    def work(self) -> str:
        return "writing the text"

    def features(self) -> dict:
        return {"block": tensor((_BLOCK,), np.uint8), "used": tensor((), np.int32)}

    def records(self) -> dict[str, Records]:
        config, path = self.recipe.settings, self.files["text"]
        text = read_bytes(path)
        characters = None
        if config.vocabulary == "characters":
            text, characters = _in_characters(text, path)
        self.remember(
            characters=characters,
            # what is found in the cache without a file being named must be tinyshakespeare
            complete=FILE.sha256 in self.digests.values(),
        )
        ends = [
            round(len(text) * share)
            for share in (1 - config.validation - config.test, 1 - config.test)
        ]
        parts = (text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :])
        by_split = dict(zip(("train", "validation", "test"), parts, strict=True))
        for split, part in by_split.items():
            if not part:
                raise ValueError(
                    f"{path} must hold enough tokens for split {split}, got {len(text)} in all"
                )
        return {
            split: Records(-(-len(part) // _BLOCK), _blocks(part))
            for split, part in by_split.items()
        }


def _in_characters(text: bytes, path: Path) -> tuple[bytes, str]:
    """Each character as one byte, its place in the second string, which has them in order."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be UTF-8, got byte {text[error.start]:#04x} at {error.start}; "
            f"vocabulary bytes reads anything"
        ) from None
    characters = "".join(sorted(set(decoded)))
    if not 1 < len(characters) <= 256:
        raise ValueError(
            f"{path} must hold 2 to 256 different characters, got {len(characters)}; vocabulary "
            f"bytes reads anything"
        )
    codes = np.frombuffer(decoded.encode("utf-32-le"), np.uint32)
    return np.searchsorted(np.unique(codes), codes).astype(np.uint8).tobytes(), characters


def _blocks(text: bytes) -> Iterator[dict]:
    for start in range(0, len(text), _BLOCK):
        block, used = padded(text[start : start + _BLOCK], _BLOCK)
        yield {"block": block, "used": used}
