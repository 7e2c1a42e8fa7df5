"""Sequential MNIST: handwritten digits pixel by pixel, in the order of reading.

LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998; as a sequence: Le, Jaitly, Hinton,
arXiv 1504.00941.
"""

from dataclasses import dataclass

from ...checks import check_at_least
from ...store.places import Places
from ...task import Split, Task, majority_baseline


@dataclass(frozen=True)
class SMNISTConfig:
    """The split of the training pictures."""

    validation: int = 6_000
    """Training pictures that are held out for validation: 10 %, as in the literature."""
    seed: int = 0
    """Seed of that choice."""
    time_channel: bool = False
    """Whether each step has an additional channel with the share of the sequence before it, as in
    the published code."""

    def __post_init__(self):
        check_at_least(self, validation=1, seed=0)


def load_smnist(config: SMNISTConfig, places: Places) -> Task:
    """Sequential MNIST as a task: 784 steps of one value in [0, 1], 10 classes.

    Reads the four IDX files, gzipped or not, from `data_dir`, or downloads them. FileNotFoundError
    when one is missing, ValueError if one is damaged or does not match the others.
    """
    from ...store.files import prepare_from_files  # 0.5 s to import
    from .builder import SMNIST, fetch, find_files

    prepared = prepare_from_files(
        SMNIST,
        config,
        f"v{config.validation}_s{config.seed}",
        find_files,
        fetch,
        places,
    )
    splits = {
        name: Split(
            arrays["image"].reshape(len(arrays["label"]), 784, 1),
            arrays["label"],
            scale=1 / 255,
            time_channel=config.time_channel,
        )
        for name, arrays in prepared.splits.items()
    }
    return Task(
        name="smnist",
        length=784,
        input_kind="real",
        input_size=1 + config.time_channel,
        classes=10,
        splits=splits,
        baselines={"majority": majority_baseline(splits["train"], splits["test"])},
        notes=tuple(prepared.metadata["notes"]),
    )
