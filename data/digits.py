"""The real data set that needs no download: handwritten digits of 8x8 pixels as sequences of 64
values.

Source: the test half of the "Optical Recognition of Handwritten Digits" data (Alpaydin and Kaynak,
UCI 1998), 1797 pictures of 17 grey levels, as scikit-learn ships them.
"""

from dataclasses import dataclass
from pathlib import Path

from .store import data_cache
from .task import Progress, Split, Task, majority_baseline

_SAMPLES = 1797


@dataclass(frozen=True)
class DigitsConfig:
    """How the 1797 digits are split."""

    validation: int = 200
    """Samples in the validation split."""
    test: int = 300
    """Samples in the test split; what is left is for training (1297 by default)."""
    seed: int = 0
    """Seed of the split; every split holds each digit as often, give or take a few."""

    def __post_init__(self):
        for name in ("validation", "test"):
            if getattr(self, name) < 10:
                raise ValueError(f"{name} must be at least 10, got {getattr(self, name)}")
        if self.validation + self.test > _SAMPLES - 10:
            raise ValueError(
                f"validation + test must leave at least 10 of the {_SAMPLES} digits for training, "
                f"got {self.validation} + {self.test}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


def load_digits(
    config: DigitsConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """The digits as a task: 64 steps of one value in [0, 1], 10 classes. Needs no raw files."""
    from .builder import Recipe, prepare  # 0.5 s to import
    from .digits_builder import Digits

    if data_dir is not None:
        raise ValueError(
            f"data_dir must be left out for the task digits, whose data comes with scikit-learn; "
            f"got {data_dir}"
        )
    name = f"v{config.validation}_t{config.test}_s{config.seed}"
    recipe = Recipe(name=name, settings=config, progress=progress)
    prepared = prepare(Digits, recipe, data_cache(cache_dir))
    splits = {
        name: Split(
            arrays["image"].reshape(len(arrays["label"]), 64, 1), arrays["label"], scale=1 / 16
        )
        for name, arrays in prepared.splits.items()
    }
    return Task(
        name="digits",
        length=64,
        input_kind="real",
        input_size=1,
        classes=10,
        splits=splits,
        baselines={"majority": majority_baseline(splits["train"], splits["test"])},
        notes=tuple(prepared.metadata["notes"]),
    )
