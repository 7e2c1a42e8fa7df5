"""Handwritten digits of 8x8 pixels as sequences of 64 values: real data without a download.

Source: the test half of the "Optical Recognition of Handwritten Digits" data (Alpaydin and Kaynak,
UCI 1998), 1797 pictures of 17 grey levels, as scikit-learn ships them.
"""

from dataclasses import dataclass

from ...checks import check_at_least
from ...store.places import Places
from ...task import Split, Task, majority_baseline

_SAMPLES = 1797


@dataclass(frozen=True)
class DigitsConfig:
    """The split of the 1797 digits."""

    validation: int = 200
    """Samples in the validation split."""
    test: int = 300
    """Samples in the test split; the rest is for training (1297 by default)."""
    seed: int = 0
    """Seed of the split; every split holds about as many of each digit."""

    def __post_init__(self):
        check_at_least(self, validation=10, test=10, seed=0)
        if self.validation + self.test > _SAMPLES - 10:
            raise ValueError(
                f"validation + test must leave at least 10 of the {_SAMPLES} digits for training, "
                f"got {self.validation} + {self.test}"
            )


def load_digits(config: DigitsConfig, places: Places) -> Task:
    """The digits as a task: 64 steps of one value in [0, 1], 10 classes. Needs no raw files."""
    from ...store.files import prepare_without_files  # 0.5 s to import
    from .builder import Digits

    prepared = prepare_without_files(
        Digits,
        config,
        f"v{config.validation}_t{config.test}_s{config.seed}",
        "for the task digits, whose data comes with scikit-learn",
        places,
    )
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
