"""Sequential MNIST: handwritten digits pixel by pixel, in the order of reading.

LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998; as a sequence: Le, Jaitly, Hinton,
arXiv 1504.00941.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .idx import read_idx
from .task import Progress, Split, Task, majority_baseline

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
WHERE = "http://yann.lecun.com/exdb/mnist, or a mirror such as https://ossci-datasets.s3.amazonaws.com/mnist"


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

    Reads the four IDX files, gzipped or not, from `data_dir`. FileNotFoundError when it lacks one,
    ValueError when one is damaged or does not go with the others.
    """
    del cache_dir, progress
    if data_dir is None:
        raise FileNotFoundError(
            "smnist reads MNIST's own files: put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz "
            f"(from {WHERE}) into a folder, and name it by --data-dir"
        )
    folder = Path(data_dir).expanduser()
    images, labels = _pictures(folder, "train")
    if config.validation >= len(labels):
        raise ValueError(
            f"validation must leave some of the {len(labels)} training pictures, "
            f"got {config.validation}"
        )
    order = np.random.default_rng(config.seed).permutation(len(labels))
    held_out = np.sort(order[: config.validation])
    rest = np.sort(order[config.validation :])
    splits = {
        "train": _split(images[rest], labels[rest]),
        "validation": _split(images[held_out], labels[held_out]),
        "test": _split(*_pictures(folder, "test")),
    }
    return Task(
        name="smnist",
        length=784,
        input_kind="real",
        input_size=1,
        classes=10,
        splits=splits,
        baselines={"majority": majority_baseline(splits["train"], splits["test"])},
    )


def _pictures(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = (_find(folder, name) for name in FILES[part])
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{image_path}: pictures of {images.shape[1:]} pixels, allowed: (28, 28)")
    if len(images) != len(labels):
        raise ValueError(f"{label_path}: {len(labels)} labels for {len(images)} pictures")
    if len(labels) and labels.max() > 9:
        record = int(np.argmax(labels > 9))
        raise ValueError(
            f"{label_path}: label {labels[record]} in record {record}, allowed: 0 to 9"
        )
    return images, labels


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has no {name}.gz (MNIST, from {WHERE})")


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(images.reshape(len(images), 784, 1), labels.astype(np.int32), scale=1 / 255)
