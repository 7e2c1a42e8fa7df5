"""ListOps: the value of a nested expression of minima, maxima, medians and sums.

Nangia and Bowman, NAACL-SRW 2018, arXiv 1804.06028; in this length: Tay et al., ICLR 2021 (Long
Range Arena).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int32

from ...checks import check_at_least, check_choice, check_workers
from ...store.places import Places
from ...task import Split, Task, majority_baseline
from ...text import token_splits
from .tokens import SYMBOLS, VOCABULARY


@dataclass(frozen=True)
class ListOpsConfig:
    """The kind and the number of expressions."""

    source: Literal["official", "generated"] | None = None
    """`official`: from --data-dir, else the release is downloaded (7.7 GB); `generated`: made here,
    by the same procedure; None: official with --data-dir, generated without."""
    train: int = 96_000
    """Expressions to make for training. With official files, all of those are used instead."""
    validation: int = 2_000
    """Expressions to make for validation."""
    test: int = 2_000
    """Expressions to make for testing."""
    min_length: int = 500
    """Expressions are longer than this, in digits plus two for each operator."""
    max_length: int = 2000
    """Expressions are shorter than this; a sequence has as many steps as the next power of two."""
    max_depth: int = 10
    """Depth of the deepest digits."""
    max_args: int = 10
    """Most arguments of an operator; the fewest are 2."""
    seed: int = 0
    """Seed of the expressions."""
    workers: int | None = None
    """Processes that make expressions (None: one per core; 1: only this one). The expressions do
    not depend on it."""

    def __post_init__(self):
        check_choice(self, "source", ("official", "generated", None))
        check_at_least(self, train=1, validation=1, test=1, max_args=2, seed=0)
        if not 2 <= self.max_depth <= 20:
            raise ValueError(f"max_depth must be between 2 and 20, got {self.max_depth}")
        if not 0 <= self.min_length <= self.max_length - 10:
            raise ValueError(
                f"min_length must be between 0 and max_length - 10 = {self.max_length - 10}, got "
                f"{self.min_length}"
            )
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = 2 + self.max_args * longest
        if not self.min_length < longest:
            raise ValueError(
                f"min_length must be below {longest}, the longest with max_depth={self.max_depth} "
                f"and max_args={self.max_args}, got {self.min_length}"
            )
        check_workers(self.workers)

    @property
    def length(self) -> int:
        """Steps of a sequence, with its end token and padding."""
        return 1 << (self.max_length - 1).bit_length()


def load_listops(config: ListOpsConfig, places: Places) -> Task:
    """ListOps as a task: up to `config.length` tokens, 10 classes.

    Expressions are made, once, and kept under `cache_dir`; or read from
    `basic_{train,val,test}.tsv` below `data_dir`; or, with source official and no `data_dir`, from
    the Long Range Arena release, which is downloaded. Each value is recomputed from the tokens and
    compared. Raises FileNotFoundError if files are not available, ValueError when one of them is
    damaged or holds a wrong value.
    """
    from ...store.files import (  # 0.5 s to import
        is_official,
        prepare_from_files,
        prepare_without_files,
    )
    from .builder import ListOps, fetch, find_files

    if is_official(config.source, places):
        prepared = prepare_from_files(
            ListOps, config, f"l{config.length}", find_files, fetch, places
        )
    else:
        name = (
            f"l{config.min_length}_{config.max_length}_d{config.max_depth}_a{config.max_args}"
            f"_s{config.seed}_n{config.train}_{config.validation}_{config.test}"
        )
        prepared = prepare_without_files(ListOps, config, name, "with source generated", places)
    splits = token_splits(prepared.splits, "tokens", "length")
    train, test = splits["train"], splits["test"]
    return Task(
        name="listops",
        length=config.length,
        input_kind="tokens",
        input_size=len(VOCABULARY),
        classes=10,
        splits=splits,
        symbols=SYMBOLS,
        baselines={
            "majority": majority_baseline(train, test),
            "first operator": _first_token_baseline(train, test),
        },
        notes=tuple(prepared.metadata["notes"]),
    )


def _first_token_baseline(train: Split, test: Split) -> float:
    """Accuracy on `test` of the most frequent label in `train` after the same first token."""
    counts: Int32[np.ndarray, "tokens 10"] = np.zeros((len(VOCABULARY), 10), np.int32)
    np.add.at(counts, (train.inputs[:, 0], train.labels), 1)
    return float(np.mean(counts.argmax(axis=1)[test.inputs[:, 0]] == test.labels))
