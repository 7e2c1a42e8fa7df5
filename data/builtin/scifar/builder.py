"""The tensorflow-datasets builder of CIFAR-10, from its binary version.

A record there is a byte with the label and 3072 with the picture: all of red, then green and blue.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from ...store.builder import AbstractTaskBuilder, Records, tensor
from ...store.download import RemoteFile, download_all
from ...store.raw import files_in_tar, hold_out

FILE = RemoteFile(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    170052171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
fetch = partial(download_all, "scifar", (FILE,))
PUBLISHED = {"train": 50_000, "test": 10_000}
_RECORD = 1 + 3 * 32 * 32


def find_files(folder: Path) -> dict[str, Path]:
    """The unpacked batches in `folder` or its `cifar-10-batches-bin`, else the packed ones.

    FileNotFoundError when there are neither.
    """
    for place in (folder / "cifar-10-batches-bin", folder):
        batches = sorted(place.glob("data_batch_*.bin"))
        if batches and (place / "test_batch.bin").is_file():
            return {path.name: path for path in (*batches, place / "test_batch.bin")}
    for path in sorted(folder.glob("cifar-10-binary*.tar.gz")):
        return {"archive": path}
    raise FileNotFoundError(f"{folder} has no {FILE.name} (CIFAR-10, from {FILE.url})")


class SCIFAR(AbstractTaskBuilder):
    """Small photographs in ten classes. Settings: a `SCIFARConfig`; source: `find_files`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = "Photographs of 32x32 pixels in ten classes, to be read pixel by pixel."
    HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
    CITATION = (
        "Krizhevsky: Learning multiple layers of features from tiny images. Technical report, "
        "University of Toronto, 2009."
    )

    @property
    def work(self) -> str:
        return "reading CIFAR-10"

    def features(self) -> dict:
        return {"image": tensor((32, 32, 3), np.uint8), "label": tensor((), np.int32)}

    def records(self) -> dict[str, Records]:
        config, paths = self.recipe.settings, self.files
        batches = dict(_batches(paths))
        if "test_batch.bin" not in batches or len(batches) < 2:
            raise ValueError(
                f"{next(iter(paths.values()))}: must hold test_batch.bin and data_batch_*.bin, "
                f"got {', '.join(sorted(batches)) or 'neither'}"
            )
        test = batches.pop("test_batch.bin")
        train = np.concatenate([batches[name] for name in sorted(batches)])
        self.compare(PUBLISHED, {"train": len(train), "test": len(test)})
        kept, held_out = hold_out(len(train), round(config.validation * len(train)), config.seed)
        return {
            "train": _records(train[kept]),
            "validation": _records(train[held_out]),
            "test": _records(test),
        }


def _batches(paths: Mapping[str, Path]) -> Iterator[tuple[str, UInt8[np.ndarray, "_ 3073"]]]:
    """The files by name, wherever they are."""
    if "archive" not in paths:
        for name, path in paths.items():
            yield name, _rows(path.read_bytes(), str(path))
        return
    archive = paths["archive"]
    for path, raw in files_in_tar(archive, lambda path: path.suffix == ".bin"):
        yield path.name, _rows(raw, f"{archive}, {path.name}")


def _rows(raw: bytes, where: str) -> UInt8[np.ndarray, "n 3073"]:
    if not raw or len(raw) % _RECORD:
        raise ValueError(
            f"{where} must hold one record or more of {_RECORD} bytes, a label and a picture, got "
            f"{len(raw)} bytes"
        )
    rows = np.frombuffer(raw, np.uint8).reshape(-1, _RECORD)
    wrong = np.flatnonzero(rows[:, 0] > 9)
    if len(wrong):
        raise ValueError(
            f"{where} must hold labels from 0 to 9, got {rows[wrong[0], 0]} in record {wrong[0]}"
        )
    return rows


def _records(rows: UInt8[np.ndarray, "n 3073"]) -> Records:
    def samples() -> Iterator[dict]:
        for row in rows:
            picture = np.ascontiguousarray(row[1:].reshape(3, 32, 32).transpose(1, 2, 0))
            yield {"image": picture, "label": np.int32(row[0])}

    return Records(len(rows), samples())
