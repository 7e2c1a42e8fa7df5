"""The tensorflow-datasets builder of AAN: the official pairs, or generated ones."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ...store.builder import AbstractTaskBuilder, Records, tensor
from ...store.raw import find_file, numbered_lines
from ...store.release import RELEASE, unpack_release
from ...text import padded
from .topics import TopicTexts

fetch = partial(unpack_release, "tsv_data")
PUBLISHED = {"train": 147_086, "validation": 18_090, "test": 17_437}
_FILES = {
    "train": "new_aan_pairs.train.tsv",
    "validation": "new_aan_pairs.eval.tsv",
    "test": "new_aan_pairs.test.tsv",
}
_LABELS = {b"0": 0, b"0.0": 0, b"1": 1, b"1.0": 1}
_Pair = tuple[bytes, bytes, int]


def find_files(folder: Path) -> dict[str, Path]:
    """The three files in `folder` or its `tsv_data`. FileNotFoundError when one is missing."""
    place = folder / "tsv_data"
    place = place if place.is_dir() else folder
    what = (
        f"AAN of Long Range Arena: tsv_data of {RELEASE.url}, unpacked, is the folder to be named "
        f"by --data-dir; without it all is downloaded; source generated makes a stand-in"
    )
    return {split: find_file(place, (name,), what) for split, name in _FILES.items()}


class AAN(AbstractTaskBuilder):
    """Pairs of texts. Settings: an `AANConfig`; source: `find_files`, or None to generate."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = "Pairs of texts, to be read byte by byte: does one paper cite the other?"
    HOMEPAGE = "https://github.com/google-research/long-range-arena"
    CITATION = (
        "Radev, Muthukrishnan, Qazvinian, Abu-Jbara: The ACL Anthology Network corpus. Language "
        "Resources and Evaluation 47(4), 2013. Tay et al.: Long Range Arena. ICLR 2021."
    )

    @property
    def work(self) -> str:
        return "writing pairs of texts"

    def features(self) -> dict:
        return {
            "texts": tensor((2, self.recipe.settings.length), np.uint8),
            "lengths": tensor((2,), np.int32),
            "label": tensor((), np.int32),
        }

    def records(self) -> dict[str, Records]:
        config, paths = self.recipe.settings, self.recipe.source
        if paths is None:
            self.add_note("these pairs of texts are generated: they are not those of AAN")
            texts = TopicTexts(config.seed, config.topics, config.topical)
            counts = {name: getattr(config, name) for name in PUBLISHED}
            pairs = {
                name: texts.pairs(count, config.length, stream)
                for stream, (name, count) in enumerate(counts.items())
            }
        else:
            counts, pairs = {}, {}
            for name, path in paths.items():
                counts[name], empty = _count(path)
                pairs[name] = _read(path)
                if empty:
                    self.add_note(
                        f"skipped {len(empty)} of the pairs in {path}, one text of which is empty: "
                        f"lines {', '.join(map(str, empty))}"
                    )
            self.compare(PUBLISHED, counts)
        return {
            name: Records(counts[name], _features(pairs[name], config.length)) for name in PUBLISHED
        }


def _features(pairs: Iterator[_Pair], length: int) -> Iterator[dict]:
    for first, second, label in pairs:
        (one, one_length), (two, two_length) = padded(first, length), padded(second, length)
        yield {
            "texts": np.stack([one, two]),
            "lengths": np.array([one_length, two_length], np.int32),
            "label": np.int32(label),
        }


def _count(path: Path) -> tuple[int, list[int]]:
    """The number of pairs, and the lines with an empty text. All lines are checked."""
    pairs, empty = 0, []
    for number, (first, second, _) in _lines(path):
        if first and second:
            pairs += 1
        else:
            empty.append(number)
    if not pairs:
        raise ValueError(f"{path} must hold a pair of texts or more, got none")
    return pairs, empty


def _read(path: Path) -> Iterator[_Pair]:
    return (pair for _, pair in _lines(path) if pair[0] and pair[1])


def _lines(path: Path) -> Iterator[tuple[int, _Pair]]:
    with path.open("rb") as file:
        for number, line in numbered_lines(file):
            columns = line.split(b"\t")
            if len(columns) != 5:
                raise ValueError(
                    f"{path}, line {number} must have 5 columns (label, two identifiers, two "
                    f"texts), got {len(columns)}"
                )
            if columns[0] not in _LABELS:
                label = columns[0].decode("latin-1")
                raise ValueError(
                    f"{path}, line {number} must have a label of 0 or 1, got {label[:40]!r}"
                )
            yield number, (columns[3], columns[4], _LABELS[columns[0]])
