"""AAN: does one paper cite the other? Two texts read byte by byte, by the same encoder.

Radev, Muthukrishnan, Qazvinian, Abu-Jbara 2013 (ACL Anthology Network); as a task: Tay et al.,
ICLR 2021 (Long Range Arena).
"""

from dataclasses import dataclass
from typing import Literal

from ...checks import check_at_least, check_choice
from ...store.places import Places
from ...task import Task, majority_baseline
from ...text import BYTES, token_splits


@dataclass(frozen=True)
class AANConfig:
    """The choice of pairs of texts."""

    source: Literal["official", "generated"] = "official"
    """`official`: from --data-dir, else the release is downloaded (7.7 GB); `generated`: artificial
    texts that do or do not share their topic, to try a model for pairs."""
    length: int = 4000
    """Bytes of a text that are read; the rest is cut off."""
    topics: int = 24
    """Number of topics of generated texts; fewer are easier to distinguish."""
    topical: float = 0.2
    """Share of a generated text's words that belong to its topic; a larger share is easier."""
    train: int = 4_000
    """Pairs to generate for training."""
    validation: int = 500
    """Pairs to generate for validation."""
    test: int = 1_000
    """Pairs to generate for testing."""
    seed: int = 0
    """Seed of the generated pairs."""

    def __post_init__(self):
        check_choice(self, "source", ("official", "generated"))
        shortest = 1 if self.source == "official" else 100
        check_at_least(self, length=shortest, topics=2, train=1, validation=1, test=1, seed=0)
        if not 0 < self.topical <= 1:
            raise ValueError(f"topical must be above 0 and at most 1, got {self.topical}")


def load_aan(config: AANConfig, places: Places) -> Task:
    """AAN as a task: pairs of up to `length` bytes, 2 classes (1: they belong together).

    Official pairs are read from `new_aan_pairs.{train,eval,test}.tsv` below `data_dir`; without it
    from data that has been prepared before, or from the Long Range Arena release, which is
    downloaded. FileNotFoundError if they are not available, ValueError if a file is damaged.
    """
    from ...store.files import prepare_from_files, prepare_without_files  # 0.5 s to import
    from .builder import AAN, fetch, find_files

    if config.source == "official":
        prepared = prepare_from_files(AAN, config, f"l{config.length}", find_files, fetch, places)
    else:
        name = (
            f"generated_l{config.length}_t{config.topics}_{config.topical}_s{config.seed}"
            f"_n{config.train}_{config.validation}_{config.test}"
        )
        prepared = prepare_without_files(AAN, config, name, "with source generated", places)
    splits = token_splits(prepared.splits, "texts", "lengths")
    return Task(
        name="aan" if config.source == "official" else "aan (generated)",
        kind="pair",
        length=config.length,
        input_kind="tokens",
        input_size=len(BYTES),
        classes=2,
        splits=splits,
        symbols=BYTES,
        baselines={"majority": majority_baseline(splits["train"], splits["test"])},
        notes=tuple(prepared.metadata["notes"]),
    )
