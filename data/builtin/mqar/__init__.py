"""Multi-query associative recall: what was the value of this key?

Arora et al., "Zoology", ICLR 2024, arXiv 2312.04927.
"""

from dataclasses import dataclass

import numpy as np

from ...checks import check_at_least
from ...store.places import Places
from ...task import Split, Task


@dataclass(frozen=True)
class MQARConfig:
    """The number of pairs to remember, and the length of sequences."""

    pairs: int = 8
    """Pairs of a key and a value at the start of a sequence; each key is queried once."""
    fewest: int | None = None
    """Fewest pairs of a sequence for training, whose numbers are drawn evenly from `fewest` to
    `pairs`; None: all have `pairs`, as those for validation and testing always do."""
    length: int = 64
    """Tokens of a sequence: four for each pair, or more."""
    vocabulary: int = 128
    """Size of the vocabulary: one half are keys, the other half values."""
    power: float = 0.01
    """Gaps before the queries follow a power law with the exponent `power` - 1: a small `power`
    gives short gaps."""
    train: int = 20_000
    """Sequences to make for training."""
    validation: int = 1_000
    """Sequences to make for validation."""
    test: int = 1_000
    """Sequences to make for testing."""
    seed: int = 0
    """Seed of the sequences."""

    def __post_init__(self):
        check_at_least(self, pairs=1, train=1, validation=1, test=1)
        if self.fewest is not None and not 1 <= self.fewest <= self.pairs:
            raise ValueError(
                f"fewest must be between 1 and pairs = {self.pairs}, or none, got {self.fewest}"
            )
        if self.length < 4 * self.pairs or self.length % 2:
            raise ValueError(
                f"length must be even and at least {4 * self.pairs}, four tokens for each of "
                f"{self.pairs} pairs, got {self.length}"
            )
        if self.vocabulary < 2 * self.pairs + 2 or self.vocabulary % 2:
            raise ValueError(
                f"vocabulary must be even and at least {2 * self.pairs + 2}, for {self.pairs} "
                f"different keys and as many values, got {self.vocabulary}"
            )
        if not self.power > 0:
            raise ValueError(f"power must be above 0, got {self.power}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")


def load_mqar(config: MQARConfig, places: Places) -> Task:
    """Recall as a task: tokens, with the value as the label at each repeated key, and no label at
    other steps. More pairs are harder. Needs no raw files.
    """
    from ...store.files import prepare_without_files  # 0.5 s to import
    from .builder import MQAR

    prepared = prepare_without_files(
        MQAR,
        config,
        f"p{_numbers(config)}_l{config.length}_v{config.vocabulary}_a{config.power}_s{config.seed}"
        f"_n{config.train}_{config.validation}_{config.test}",
        "for the task mqar, which is generated",
        places,
    )
    splits = {
        name: Split(arrays["tokens"], arrays["values"], input_kind="tokens")
        for name, arrays in prepared.splits.items()
    }
    return Task(
        name="mqar",
        kind="recall",
        length=config.length,
        input_kind="tokens",
        input_size=config.vocabulary,
        splits=splits,
        symbols=_symbols(config.vocabulary),
        baselines={"latest value": _latest_value(splits["test"], config.pairs)},
        notes=tuple(prepared.metadata["notes"]),
    )


def _numbers(config: MQARConfig) -> str:
    return f"{config.pairs}" if config.fewest is None else f"{config.fewest}-{config.pairs}"


def _symbols(vocabulary: int) -> tuple[str, ...]:
    half = vocabulary // 2
    return tuple(f"{'k' if token < half else 'v'}{token % half} " for token in range(vocabulary))


def _latest_value(split: Split, pairs: int) -> float:
    """Accuracy of always answering the value of the last pair."""
    asked = split.labels >= 0
    return float(np.mean((split.labels == split.inputs[:, [2 * pairs - 1]])[asked]))
