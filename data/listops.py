"""ListOps: what is a nested expression of minima, maxima, medians and sums worth?

Nangia and Bowman, NAACL-SRW 2018, arXiv 1804.06028; in this length: Tay et al., ICLR 2021 (Long
Range Arena).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from .listops_tokens import SYMBOLS, VOCABULARY
from .store import data_cache
from .task import Progress, Split, Task, majority_baseline


@dataclass(frozen=True)
class ListOpsConfig:
    """Which expressions, and how many."""

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
    """Processes that make expressions (None: one per core; 1: none but this one). Does not change
    them."""

    def __post_init__(self):
        for name in ("train", "validation", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_args < 2:
            raise ValueError(f"max_args must be at least 2, got {self.max_args}")
        if not 2 <= self.max_depth <= 20:
            raise ValueError(f"max_depth must be between 2 and 20, got {self.max_depth}")
        if not 0 <= self.min_length <= self.max_length - 10:
            raise ValueError(
                f"min_length must be between 0 and max_length - 10 = {self.max_length - 10}, got "
                f"{self.min_length}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1 or None, got {self.workers}")

    @property
    def length(self) -> int:
        """Steps of a sequence, with its end token and padding."""
        return 1 << (self.max_length - 1).bit_length()


def load_listops(
    config: ListOpsConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """ListOps as a task: up to `config.length` tokens, 10 classes.

    Without `data_dir` the expressions are made, once, and kept under `cache_dir`. With it they are
    read from `basic_{train,val,test}.tsv` of the Long Range Arena release. Either way each value is
    computed anew from the tokens, and compared.

    Raises FileNotFoundError when `data_dir` lacks files, ValueError when one of them is damaged or
    holds a wrong value.
    """
    from .builder import Recipe, prepare  # 0.5 s to import
    from .files import prepare_from_files
    from .listops_builder import ListOps, find_files

    if data_dir is None:
        name = (
            f"l{config.min_length}_{config.max_length}_d{config.max_depth}_a{config.max_args}"
            f"_s{config.seed}_n{config.train}_{config.validation}_{config.test}"
        )
        recipe = Recipe(name=name, settings=config, progress=progress)
        prepared = prepare(ListOps, recipe, data_cache(cache_dir))
    else:
        prepared = prepare_from_files(
            ListOps,
            config,
            f"l{config.length}",
            find_files,
            (),
            data_dir=data_dir,
            cache_dir=cache_dir,
            progress=progress,
        )
    splits = {
        name: Split(
            arrays["tokens"], arrays["label"], lengths=arrays["length"], input_kind="tokens"
        )
        for name, arrays in prepared.splits.items()
    }
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
    """Accuracy on `test` of the label that is commonest in `train` after the same first token."""
    counts: Int32[np.ndarray, "tokens 10"] = np.zeros((len(VOCABULARY), 10), np.int32)
    np.add.at(counts, (train.inputs[:, 0], train.labels), 1)
    return float(np.mean(counts.argmax(axis=1)[test.inputs[:, 0]] == test.labels))
