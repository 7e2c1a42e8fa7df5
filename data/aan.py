"""AAN: does one paper cite the other? Two texts read byte by byte, by the same encoder.

Radev, Muthukrishnan, Qazvinian, Abu-Jbara 2013 (ACL Anthology Network); as a task: Tay et al.,
ICLR 2021 (Long Range Arena).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .store import data_cache
from .task import Progress, Split, Task, majority_baseline
from .text import BYTES


@dataclass(frozen=True)
class AANConfig:
    """Which pairs of texts."""

    source: Literal["official", "generated"] = "official"
    """`official` pairs need --data-dir; `generated` ones are no papers, but made-up texts that do
    or do not share their topic: something to try a model for pairs on."""
    length: int = 4000
    """Bytes of a text that are read; the rest is dropped."""
    train: int = 4_000
    """Pairs to generate for training."""
    validation: int = 500
    """Pairs to generate for validation."""
    test: int = 1_000
    """Pairs to generate for testing."""
    seed: int = 0
    """Seed of the generated pairs."""

    def __post_init__(self):
        if self.source not in ("official", "generated"):
            raise ValueError(f"source must be official or generated, got {self.source!r}")
        if self.length < 1 or (self.source == "generated" and self.length < 100):
            raise ValueError(
                f"length must be at least {1 if self.source == 'official' else 100}, got "
                f"{self.length}"
            )
        for name in ("train", "validation", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


def load_aan(
    config: AANConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """AAN as a task: pairs of up to `length` bytes, 2 classes (1: they belong together).

    Official pairs are read from `new_aan_pairs.{train,eval,test}.tsv` of the Long Range Arena
    release below `data_dir`, or what has been prepared from all of them before. FileNotFoundError
    when there is neither, ValueError when a file is damaged.
    """
    from .aan_builder import AAN, find_files  # 0.5 s to import
    from .builder import Recipe, prepare
    from .files import prepare_from_files

    if config.source == "generated":
        if data_dir is not None:
            raise ValueError(f"data_dir must be left out with source generated, got {data_dir}")
        name = (
            f"generated_l{config.length}_s{config.seed}"
            f"_n{config.train}_{config.validation}_{config.test}"
        )
        recipe = Recipe(name=name, settings=config, progress=progress)
        prepared = prepare(AAN, recipe, data_cache(cache_dir))
    else:
        prepared = prepare_from_files(
            AAN,
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
            arrays["texts"], arrays["label"], lengths=arrays["lengths"], input_kind="tokens"
        )
        for name, arrays in prepared.splits.items()
    }
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
