"""Sequential MNIST: handwritten digits pixel by pixel, in the order of reading.

LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998; as a sequence: Le, Jaitly, Hinton,
arXiv 1504.00941.
"""

from dataclasses import dataclass
from pathlib import Path

from .task import Progress, Split, Task, majority_baseline


@dataclass(frozen=True)
class SMNISTConfig:
    """How the training pictures are split."""

    validation: int = 6_000
    """Training pictures that are held out for validation: 10 %, as in the literature."""
    seed: int = 0
    """Seed of that choice."""

    def __post_init__(self):
        if self.validation < 1:
            raise ValueError(f"validation must be at least 1, got {self.validation}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


def load_smnist(
    config: SMNISTConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """Sequential MNIST as a task: 784 steps of one value in [0, 1], 10 classes.

    Reads the four IDX files, gzipped or not, from `data_dir`, or downloads them. FileNotFoundError
    when one is missing, ValueError when one is damaged or does not go with the others.
    """
    from .files import prepare_from_files  # 0.5 s to import
    from .smnist_builder import FILES, SMNIST, find_files

    prepared = prepare_from_files(
        SMNIST,
        config,
        f"v{config.validation}_s{config.seed}",
        find_files,
        FILES,
        data_dir=data_dir,
        cache_dir=cache_dir,
        progress=progress,
    )
    splits = {
        name: Split(
            arrays["image"].reshape(len(arrays["label"]), 784, 1), arrays["label"], scale=1 / 255
        )
        for name, arrays in prepared.splits.items()
    }
    return Task(
        name="smnist",
        length=784,
        input_kind="real",
        input_size=1,
        classes=10,
        splits=splits,
        baselines={"majority": majority_baseline(splits["train"], splits["test"])},
        notes=tuple(prepared.metadata["notes"]),
    )
