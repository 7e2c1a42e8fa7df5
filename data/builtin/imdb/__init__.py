"""IMDB reviews byte by byte: is the review positive?

Maas et al., ACL 2011; as bytes: Tay et al., ICLR 2021 (Long Range Arena).
"""

from dataclasses import dataclass

from ...checks import check_at_least
from ...store.places import Places
from ...task import Task, majority_baseline
from ...text import BYTES, token_splits


@dataclass(frozen=True)
class IMDBConfig:
    """The length of reviews, and their split."""

    length: int = 4096
    """Bytes of a review that are read; the rest is cut off."""
    validation: int = 0
    """Training reviews that are held out for validation. With 0, as is usual, the test reviews are
    used."""
    seed: int = 0
    """Seed of that choice."""

    def __post_init__(self):
        check_at_least(self, length=1, validation=0, seed=0)


def load_imdb(config: IMDBConfig, places: Places) -> Task:
    """IMDB as a task: up to `length` bytes, 2 classes (1: positive).

    Reads `aclImdb`, packed or not, from `data_dir`, or downloads it. FileNotFoundError when it is
    missing, ValueError when it is damaged or a review is empty or not UTF-8.
    """
    from ...store.files import prepare_from_files  # 0.5 s to import
    from .builder import IMDB, fetch, find_files

    prepared = prepare_from_files(
        IMDB,
        config,
        f"l{config.length}_v{config.validation}_s{config.seed}",
        find_files,
        fetch,
        places,
    )
    splits = token_splits(prepared.splits, "text", "length")
    splits.setdefault("validation", splits["test"])
    return Task(
        name="imdb",
        length=config.length,
        input_kind="tokens",
        input_size=len(BYTES),
        classes=2,
        splits=splits,
        symbols=BYTES,
        baselines={"majority": majority_baseline(splits["train"], splits["test"])},
        notes=tuple(prepared.metadata["notes"]),
    )
