"""The tensorflow-datasets builder of MNIST, from its IDX files."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ...store.builder import AbstractTaskBuilder, Records, tensor
from ...store.download import RemoteFile, download_all
from ...store.idx import read_idx
from ...store.raw import find_file, hold_out

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        _URL + "train-images-idx3-ubyte.gz",
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        _URL + "train-labels-idx1-ubyte.gz",
        28881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        _URL + "t10k-images-idx3-ubyte.gz",
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        _URL + "t10k-labels-idx1-ubyte.gz",
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
fetch = partial(download_all, "smnist", FILES)
PUBLISHED = {"train": 60_000, "test": 10_000}


def find_files(folder: Path) -> dict[str, Path]:
    """The four files in `folder`, gzipped or not. FileNotFoundError when one is missing."""
    names = ("train images", "train labels", "test images", "test labels")
    return {
        name: find_file(
            folder, (file.name, file.name.removesuffix(".gz")), f"MNIST, from {file.url}"
        )
        for name, file in zip(names, FILES, strict=True)
    }


class SMNIST(AbstractTaskBuilder):
    """Pictures of handwritten digits. Settings: an `SMNISTConfig`; source: `find_files`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = "Handwritten digits of 28x28 pixels, to be read pixel by pixel."
    HOMEPAGE = "http://yann.lecun.com/exdb/mnist"
    CITATION = (
        "LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. "
        "Proc. IEEE 86(11), 1998. Le, Jaitly, Hinton: A simple way to initialize recurrent "
        "networks of rectified linear units. arXiv 1504.00941, 2015."
    )

    @property
    def work(self) -> str:
        return "reading MNIST"

    def features(self) -> dict:
        return {"image": tensor((28, 28, 1), np.uint8), "label": tensor((), np.int32)}

    def records(self) -> dict[str, Records]:
        config, paths = self.recipe.settings, self.files
        images, labels = _pictures(paths, "train")
        test = _pictures(paths, "test")
        self.compare(PUBLISHED, {"train": len(labels), "test": len(test[1])})
        kept, held_out = hold_out(len(labels), config.validation, config.seed)
        return {
            "train": _records(images[kept], labels[kept]),
            "validation": _records(images[held_out], labels[held_out]),
            "test": _records(*test),
        }


def _records(images: np.ndarray, labels: np.ndarray) -> Records:
    def samples() -> Iterator[dict]:
        for image, label in zip(images, labels, strict=True):
            yield {"image": image[..., None], "label": np.int32(label)}

    return Records(len(labels), samples())


def _pictures(paths: Mapping[str, Path], part: str) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = paths[f"{part} images"], paths[f"{part} labels"]
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != (28, 28):
        raise ValueError(
            f"{image_path} must hold pictures of (28, 28) pixels, got {images.shape[1:]}"
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{label_path} must hold a label for each of {len(images)} pictures, got {len(labels)}"
        )
    if not len(labels):
        raise ValueError(f"{image_path} must hold a picture or more, got none")
    if labels.max() > 9:
        record = int(np.argmax(labels > 9))
        raise ValueError(
            f"{label_path} must hold labels from 0 to 9, got {labels[record]} in record {record}"
        )
    return images, labels
