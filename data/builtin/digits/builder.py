"""The tensorflow-datasets builder of the digits that scikit-learn ships."""

from collections.abc import Iterator
from hashlib import sha256
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, Int32, UInt8

from ...store.builder import AbstractTaskBuilder, Records, tensor

_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""Of the pixels of all pictures, a byte each, and then the labels."""


class Digits(AbstractTaskBuilder):
    """Pictures of handwritten digits. Settings: a `DigitsConfig`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = "Handwritten digits of 8x8 pixels in 17 grey levels, to be read pixel by pixel."
    HOMEPAGE = "https://archive.ics.uci.edu/dataset/80"
    CITATION = (
        "Alpaydin, Kaynak: Optical recognition of handwritten digits. UCI Machine Learning "
        "Repository, 1998. Pedregosa et al.: Scikit-learn: machine learning in Python. JMLR 12, "
        "2011."
    )

    @property
    def work(self) -> str:
        return "writing digits"

    def features(self) -> dict:
        return {"image": tensor((8, 8, 1), np.uint8), "label": tensor((), np.int32)}

    def records(self) -> dict[str, Records]:
        config = self.recipe.settings
        images, labels = _pictures()
        order = _stratified_order(labels, config.seed)
        bounds = np.cumsum([len(labels) - config.validation - config.test, config.validation])
        return {
            name: Records(len(rows), _samples(images[rows], labels[rows]))
            for name, rows in zip(
                ("train", "validation", "test"), np.split(order, bounds), strict=True
            )
        }


def _pictures() -> tuple[UInt8[np.ndarray, "1797 8 8 1"], Int32[np.ndarray, "1797"]]:
    from sklearn.datasets import load_digits  # 1 s to import

    pixels, digits = map(np.asarray, load_digits(return_X_y=True))
    images, labels = pixels.astype(np.uint8), digits.astype(np.int32)
    found = sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    if found != _SHA256:
        raise ValueError(f"scikit-learn's digits must have the SHA-256 {_SHA256}, got {found}")
    return images.reshape(-1, 8, 8, 1), labels


def _samples(images: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    for image, label in zip(images, labels, strict=True):
        yield {"image": image, "label": label}


def _stratified_order(labels: Int32[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """An order of the samples in which every stretch holds the classes in their overall
    proportions."""
    rng = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        position[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return np.argsort(position)
