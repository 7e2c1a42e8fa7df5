"""Sequential CIFAR-10: small photographs pixel by pixel, in the order of reading.

Krizhevsky, Learning multiple layers of features from tiny images, 2009; as a sequence: Long Range
Arena (grey) and Gu et al. 2022 (in colour, as here).
"""

from dataclasses import dataclass

import numpy as np

from ...checks import check_at_least
from ...store.places import Places
from ...task import Split, Task, majority_baseline

MEAN = (0.4914, 0.4822, 0.4465)
DEVIATION = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class SCIFARConfig:
    """The split of the training pictures."""

    validation: float = 0.1
    """Share of the training pictures that is held out for validation."""
    seed: int = 0
    """Seed of that choice."""
    time_channel: bool = False
    """Whether each step has an additional channel with the share of the sequence before it, as in
    the published code."""

    def __post_init__(self):
        check_at_least(self, seed=0)
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be in (0, 1), got {self.validation}")


def load_scifar(config: SCIFARConfig, places: Places) -> Task:
    """Sequential CIFAR-10 as a task: 1024 steps of three normalised channels, 10 classes.

    Reads the binary version, packed or not, from `data_dir`, or downloads it. FileNotFoundError
    when it is missing, ValueError when it is damaged.
    """
    from ...store.files import prepare_from_files  # 0.5 s to import
    from .builder import SCIFAR, fetch, find_files

    prepared = prepare_from_files(
        SCIFAR,
        config,
        f"v{config.validation}_s{config.seed}",
        find_files,
        fetch,
        places,
    )
    offset = 255 * np.array(MEAN, np.float32)
    scale = 1 / (255 * np.array(DEVIATION, np.float32))
    splits = {
        name: Split(
            arrays["image"].reshape(len(arrays["label"]), 1024, 3),
            arrays["label"],
            offset=offset,
            scale=scale,
            time_channel=config.time_channel,
        )
        for name, arrays in prepared.splits.items()
    }
    return Task(
        name="scifar",
        length=1024,
        input_kind="real",
        input_size=3 + config.time_channel,
        classes=10,
        splits=splits,
        baselines={"majority": majority_baseline(splits["train"], splits["test"])},
        notes=tuple(prepared.metadata["notes"]),
    )
