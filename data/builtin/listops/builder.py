"""The tensorflow-datasets builder of ListOps: expressions made here, or the official ones."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from ...store.builder import AbstractTaskBuilder, Records, tensor
from ...store.raw import find_file
from ...store.release import RELEASE, unpack_release
from ...store.workers import draw_in_parallel
from .expressions import ExpressionJob
from .tokens import END, PAD, read_tsv

fetch = partial(unpack_release, "listops-1000")
PUBLISHED = {"train": 96_000, "validation": 2_000, "test": 2_000}
_FILES = {"train": "basic_train.tsv", "validation": "basic_val.tsv", "test": "basic_test.tsv"}
_CHUNK = 1000
_Sample = tuple[UInt8[np.ndarray, "_"], int]


def find_files(folder: Path) -> dict[str, Path]:
    """The three files, plain or gzipped, in `folder` or its `listops-1000`.

    FileNotFoundError when one is missing.
    """
    place = folder / "listops-1000"
    place = place if place.is_dir() else folder
    what = (
        f"ListOps of Long Range Arena, listops-1000 of {RELEASE.url}; without --data-dir "
        f"expressions like them are made"
    )
    return {split: find_file(place, (name, f"{name}.gz"), what) for split, name in _FILES.items()}


class ListOps(AbstractTaskBuilder):
    """Expressions and their values. Settings: a `ListOpsConfig`; source: `find_files` or None."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = (
        "Nested expressions of MIN, MAX, MED (median, rounded down) and SM (sum modulo 10) over "
        "digits; the label is the value."
    )
    HOMEPAGE = "https://github.com/google-research/long-range-arena"
    CITATION = (
        "Nangia, Bowman: ListOps: a diagnostic dataset for latent tree learning. NAACL Student "
        "Research Workshop 2018. Tay et al.: Long Range Arena. ICLR 2021."
    )

    @property
    def work(self) -> str:
        return "writing ListOps expressions"

    def features(self) -> dict:
        return {
            "tokens": tensor((self.recipe.settings.length,), np.uint8),
            "length": tensor((), np.int32),
            "label": tensor((), np.int32),
        }

    def records(self) -> dict[str, Records]:
        config, paths = self.recipe.settings, self.recipe.source
        if paths is None:
            counts = {name: getattr(config, name) for name in PUBLISHED}
            drawn = self._drawn(sum(counts.values()))
            splits = {name: list(itertools.islice(drawn, n)) for name, n in counts.items()}
        else:
            splits = {name: self._read(path) for name, path in paths.items()}
            self.compare(PUBLISHED, {name: len(samples) for name, samples in splits.items()})
        return {
            name: Records(len(samples), _features(samples, config.length))
            for name, samples in splits.items()
        }

    def _drawn(self, count: int) -> Iterator[_Sample]:
        """`count` expressions, no two alike."""
        config = self.recipe.settings
        job = ExpressionJob(
            config.seed, config.min_length, config.max_length, config.max_depth, config.max_args
        )
        # one chunk after another as long as it takes: what has been seen before is drawn anew
        chunks = ((index, min(_CHUNK, count)) for index in itertools.count())
        workers = config.workers if count > _CHUNK else 1
        seen: set[bytes] = set()
        futile = 0
        for drawn in draw_in_parallel(job, chunks, workers):
            before = len(seen)
            for tokens, label in zip(drawn.split(), drawn.labels, strict=True):
                key = tokens.tobytes()
                if key not in seen:
                    seen.add(key)
                    yield tokens, int(label)
                    if len(seen) == count:
                        return
            if self.recipe.progress is not None:
                self.recipe.progress(len(seen), count, "making ListOps expressions")
            futile = 0 if len(seen) > before else futile + 1
            if futile == 20:
                raise job.too_few(f"{len(seen)} different ones were found, {count} are needed")

    def _read(self, path: Path) -> list[_Sample]:
        samples = []
        for number, (tokens, label) in enumerate(read_tsv(path), 1):
            if len(tokens) >= self.recipe.settings.length:
                raise ValueError(
                    f"{path}, expression {number} must have fewer than "
                    f"{self.recipe.settings.length} tokens (max_length), got {len(tokens)}"
                )
            samples.append((tokens, label))
            if self.recipe.progress is not None and number % 1000 == 0:
                total = PUBLISHED["train"] if "train" in path.name else PUBLISHED["test"]
                self.recipe.progress(number, max(total, number), f"evaluating {path.name}")
        if not samples:
            raise ValueError(f"{path} must hold an expression or more, got none")
        return samples


def _features(samples: list[_Sample], length: int) -> Iterator[dict]:
    for tokens, label in samples:
        row = np.full(length, PAD, np.uint8)
        row[: len(tokens)] = tokens
        row[len(tokens)] = END
        yield {"tokens": row, "length": np.int32(len(tokens) + 1), "label": np.int32(label)}
