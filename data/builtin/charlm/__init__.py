"""Character-level language modelling: which character comes next?

By default on tinyshakespeare (Karpathy 2015), with the split 90/5/5; or on any text file.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ...checks import check_at_least, check_choice, check_shares
from ...store.places import Places
from ...task import Task, text_split
from ...text import BYTES


@dataclass(frozen=True)
class CharLMConfig:
    """The text, its tokens, and the length of windows."""

    text: Path | None = None
    """A text file. None: the one in --data-dir, else tinyshakespeare."""
    vocabulary: Literal["characters", "bytes"] = "characters"
    """Tokens: the characters of the text, or the 256 bytes. The measure is bits per token."""
    length: int = 256
    """Tokens in a window."""
    validation: float = 0.05
    """Share of the text for validation, before the test split."""
    test: float = 0.05
    """Share of the text for testing, at its end."""

    def __post_init__(self):
        check_choice(self, "vocabulary", ("characters", "bytes"))
        check_at_least(self, length=1)
        check_shares(self)


def load_charlm(config: CharLMConfig, places: Places) -> Task:
    """A text as a task: `length` tokens, and at each the token that comes next.

    Training has a window at every token; validation and test predict each token once. `data_dir`
    may be a text file, or a folder with one. FileNotFoundError if there is no text, ValueError
    when it is too short or not UTF-8 (with vocabulary characters) or has over 256 characters.
    """
    from ...store.files import prepare_from_files
    from .builder import CharLM, fetch, find_files  # 0.5 s to import

    if config.text is not None:
        if places.data_dir is not None:
            raise ValueError(
                f"text={config.text} and data_dir={places.data_dir} name two texts: give one"
            )
        places = replace(places, data_dir=config.text)
    prepared = prepare_from_files(
        CharLM,
        config,
        f"{config.vocabulary}_v{config.validation}_t{config.test}",
        find_files,
        fetch,
        places,
    )
    characters = prepared.metadata["characters"]
    symbols = BYTES if characters is None else tuple(characters)
    texts = {
        name: arrays["block"].reshape(-1)[: arrays["used"].sum()]
        for name, arrays in prepared.splits.items()
    }
    for name, text in texts.items():
        if len(text) <= config.length:
            raise ValueError(
                f"length must be below the {len(text)} tokens of split {name}, got {config.length}"
            )
    return Task(
        name="charlm",
        kind="language",
        length=config.length,
        input_kind="tokens",
        input_size=len(symbols),
        splits={
            name: text_split(text, config.length, 1 if name == "train" else config.length)
            for name, text in texts.items()
        },
        symbols=symbols,
        baselines={"frequencies": _frequency_bits(texts["train"], texts["test"], len(symbols))},
        notes=tuple(prepared.metadata["notes"]),
    )


def _frequency_bits(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """Bits per token of `test` by the frequencies in `train`, with one added to each count."""
    counts = np.bincount(train, minlength=size) + 1
    return float(-np.log2(counts / counts.sum())[test].mean())
