"""The tensorflow-datasets builder of IMDB reviews, from `aclImdb`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ...store.builder import AbstractTaskBuilder, Records, tensor
from ...store.download import RemoteFile, download_all
from ...store.raw import files_in_tar, hold_out
from ...text import padded

FILE = RemoteFile(
    "aclImdb_v1.tar.gz",
    "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    84125825,
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
fetch = partial(download_all, "imdb", (FILE,))
PUBLISHED = {"train": 25_000, "test": 25_000}
_LABELS = {"neg": 0, "pos": 1}


@dataclass(frozen=True)
class Review:
    """A review, and whether the film is liked (1)."""

    name: str
    text: bytes
    label: int


def find_files(folder: Path) -> dict[str, Path]:
    """The folder `aclImdb`, which may be `folder` itself, else the packed one.

    FileNotFoundError when there is neither.
    """
    for place in (folder / "aclImdb", folder):
        if all((place / part / kind).is_dir() for part in PUBLISHED for kind in _LABELS):
            return {"folder": place}
    for path in sorted(folder.glob("aclImdb*.tar.gz")):
        return {"archive": path}
    raise FileNotFoundError(
        f"{folder} has neither {FILE.name} nor aclImdb/{{train,test}}/{{pos,neg}} "
        f"(IMDB reviews, from {FILE.url})"
    )


class IMDB(AbstractTaskBuilder):
    """Reviews of films. Settings: an `IMDBConfig`; source: `find_files`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = "Reviews of films, liked (1) or not (0), to be read byte by byte."
    HOMEPAGE = "http://ai.stanford.edu/~amaas/data/sentiment"
    CITATION = (
        "Maas, Daly, Pham, Huang, Ng, Potts: Learning word vectors for sentiment analysis. ACL "
        "2011. Tay et al.: Long Range Arena. ICLR 2021."
    )

    @property
    def work(self) -> str:
        return "reading IMDB reviews"

    def features(self) -> dict:
        return {
            "text": tensor((self.recipe.settings.length,), np.uint8),
            "length": tensor((), np.int32),
            "label": tensor((), np.int32),
        }

    def records(self) -> dict[str, Records]:
        config, source = self.recipe.settings, self.files
        parts: dict[str, list[Review]] = {"train": [], "test": []}
        walk = _in_archive if "archive" in source else _in_folder
        for part, review in walk(*source.values()):
            parts[part].append(review)
            if self.recipe.progress is not None and len(parts[part]) % 500 == 0:
                total = sum(PUBLISHED.values())
                self.recipe.progress(sum(map(len, parts.values())), total, "unpacking reviews")
        for part, reviews in parts.items():
            if {review.label for review in reviews} != {0, 1}:
                raise ValueError(
                    f"{next(iter(source.values()))} must hold reviews of both kinds in {part}"
                )
            reviews.sort(key=lambda review: review.name)
        self.compare(PUBLISHED, {part: len(reviews) for part, reviews in parts.items()})
        train = parts["train"]
        splits = {"train": train, "test": parts["test"]}
        if config.validation:
            kept, held_out = hold_out(len(train), config.validation, config.seed)
            splits["train"] = [train[i] for i in kept]
            splits["validation"] = [train[i] for i in held_out]
        return {
            name: Records(len(reviews), _samples(reviews, config.length))
            for name, reviews in splits.items()
        }


def _samples(reviews: list[Review], length: int) -> Iterator[dict]:
    for review in reviews:
        text, used = padded(review.text, length)
        yield {"text": text, "length": used, "label": np.int32(review.label)}


def _in_folder(folder: Path) -> Iterator[tuple[str, Review]]:
    for part in PUBLISHED:
        for kind, label in _LABELS.items():
            for path in sorted((folder / part / kind).glob("*.txt")):
                text = path.read_bytes()
                _check(text, str(path))
                yield part, Review(f"{kind}/{path.name}", text, label)


def _in_archive(archive: Path) -> Iterator[tuple[str, Review]]:
    for path, text in files_in_tar(archive, _is_review):
        part, kind, file_name = path.parts[-3:]
        _check(text, f"{archive}, {path}")
        yield part, Review(f"{kind}/{file_name}", text, _LABELS[kind])


def _is_review(path: PurePosixPath) -> bool:
    place = path.parts[-3:]
    known = len(place) == 3 and place[0] in PUBLISHED and place[1] in _LABELS
    return known and path.suffix == ".txt"


def _check(text: bytes, where: str) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} must be UTF-8, got byte {text[error.start]:#04x} at {error.start}"
        ) from None
    if not text:
        raise ValueError(f"{where} must hold a review, got nothing")
