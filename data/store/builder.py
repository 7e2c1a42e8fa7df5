"""The base of our tensorflow-datasets builders, and prepared data as arrays.

Nothing here needs TensorFlow: records are array_record, features NumPy arrays. A data set is
written to a temporary folder and renamed when it is complete, so a killed run leaves no incomplete
data set. The arrays are decoded from the records once and kept beside them, to be read, or mapped
when they are large, from then on.
"""

import dataclasses
import itertools
import json
import logging
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from ..task import Progress
from .download import file_digest

Arrays = Mapping[str, np.ndarray]
"""A split: its features by name, all samples of one stacked."""


@dataclasses.dataclass(kw_only=True, eq=False)
class Recipe(tfds.core.BuilderConfig):
    """The recipe of a data set; `name` must identify all of its settings."""

    settings: Any
    """The task's config."""
    source: Mapping[str, Path] | None = None
    """The raw files by the builder's names; empty if the prepared data exists; None: the data is
    generated."""
    progress: Progress | None = None


@dataclasses.dataclass(frozen=True)
class Records:
    """The samples of a split, and how many there are."""

    count: int
    samples: Iterable[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set on disk, read."""

    splits: Mapping[str, Arrays]
    metadata: Mapping[str, Any]
    """The builder's facts: `notes` for reports and the SHA-256 of all `files` at least."""


def tensor(shape: tuple[int, ...], dtype: Any) -> tfds.features.Tensor:
    """The feature that holds an array, stored as its bytes."""
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=tfds.features.Encoding.BYTES)


class AbstractTaskBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that defines samples (`features`) and yields them (`records`)."""

    DESCRIPTION: ClassVar[str]
    CITATION: ClassVar[str]
    HOMEPAGE: ClassVar[str]

    @property
    @abstractmethod
    def work(self) -> str:
        """The name of the work, for the progress bar."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the data set."""
        assert isinstance(self.builder_config, Recipe)
        return self.builder_config

    @property
    def files(self) -> Mapping[str, Path]:
        """The raw files of a builder that does not generate data."""
        assert self.recipe.source is not None
        return self.recipe.source

    @abstractmethod
    def features(self) -> dict[str, Any]:
        """The features of a sample by name."""

    @abstractmethod
    def records(self) -> dict[str, Records]:
        """The splits. May store facts with `remember`, such as skipped files."""

    def remember(self, **facts: Any) -> None:
        """Keeps facts, as JSON can hold them, in the data set's metadata."""
        assert isinstance(self.info.metadata, dict)
        self.info.metadata.update(facts)

    @cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of the raw files by name; not of those in raw folders."""
        paths = (self.recipe.source or {}).values()
        return {path.name: file_digest(path) for path in paths if path.is_file()}

    def compare(self, published: Mapping[str, int], found: Mapping[str, int]) -> None:
        """Stores whether all published samples have been found."""
        self.remember(complete=dict(published) == dict(found))
        for part, count in published.items():
            if found[part] != count:
                self.add_note(f"the files hold {found[part]} of the {count} {part} samples")

    def add_note(self, note: str) -> None:
        """Stores a note for reports."""
        assert isinstance(self.info.metadata, dict)
        self.info.metadata["notes"].append(note)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(self.features()),
            metadata=tfds.core.MetadataDict(),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            disable_shuffling=True,  # samples keep their order: the loader shuffles
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        self.remember(notes=[], files=self.digests)
        splits = self.records()
        for name, records in splits.items():
            if not records.count:
                raise ValueError(
                    f"split {name} must have a sample or more, got none: the data are too few"
                )
        total = sum(records.count for records in splits.values())
        done = itertools.count(1)
        return {
            name: self._numbered(name, records, done, total) for name, records in splits.items()
        }

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("samples come from records()")

    def _numbered(
        self, name: str, records: Records, done: Iterator[int], total: int
    ) -> Iterator[tuple[int, Mapping]]:
        key = -1
        for key, sample in enumerate(records.samples):
            yield key, sample
            count = next(done)
            if self.recipe.progress is not None and (count % 500 == 0 or count == total):
                self.recipe.progress(count, total, self.work)
        if key + 1 != records.count:
            raise RuntimeError(
                f"split {name} must have {records.count} samples, as announced, got {key + 1}"
            )

    def _log_download_bytes(self) -> None:
        """Does nothing: the base class would print about downloads."""

    def _log_download_done(self) -> None:
        """Does nothing, as above."""


def prepare(builder_class: type[AbstractTaskBuilder], recipe: Recipe, folder: Path) -> Prepared:
    """The data set, written below `folder` first unless it is there."""
    builder = _builder(builder_class, recipe, folder)
    if not builder.data_path.exists():
        tfds.disable_progress_bar()
        try:
            builder.download_and_prepare(file_format="array_record")
        except OSError:
            # another process may have finished the same data set first
            if not builder.data_path.exists():
                raise
            builder = _builder(builder_class, recipe, folder)
    return Prepared(
        splits={name: _arrays(builder, name) for name in builder.info.splits or ()},
        metadata=dict(builder.info.metadata or {}),
    )


def find_complete(
    builder_class: type[AbstractTaskBuilder], settings_name: str, folder: Path
) -> str | None:
    """The name of a prepared data set that holds all that was published, if there is one.

    Its settings are those that `settings_name` stands for; from which files it was made does not
    matter, and they need not be there any more.
    """
    pattern = f"{builder_class.name}/{settings_name}_files_*/{builder_class.VERSION}/metadata.json"
    for path in sorted(folder.glob(pattern)):
        if json.loads(path.read_text()).get("complete"):
            return path.parts[-3]
    return None


def _builder(
    builder_class: type[AbstractTaskBuilder], recipe: Recipe, folder: Path
) -> AbstractTaskBuilder:
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of every config that a builder's class does not list
    try:
        return builder_class(config=recipe, data_dir=str(folder), file_format="array_record")
    finally:
        log.setLevel(level)


def _arrays(builder: AbstractTaskBuilder, split: str) -> Arrays:
    """The features of a split, decoded at the first call and mapped when they are large."""
    folder = Path(builder.data_path) / "arrays"
    names = sorted(builder.features())
    paths = {name: folder / f"{split}-{name}.npy" for name in names}
    if not all(path.exists() for path in paths.values()):
        folder.mkdir(exist_ok=True)
        _decode(builder, split, paths)
    large = sum(path.stat().st_size for path in folder.glob("*.npy")) > memory_bytes() / 4
    return {name: np.load(path, mmap_mode="r" if large else None) for name, path in paths.items()}


def _decode(builder: AbstractTaskBuilder, split: str, paths: Mapping[str, Path]) -> None:
    source = cast(Any, builder).as_data_source(split)
    features = cast(Any, builder.info.features)
    parts = {name: path.with_suffix(f".{os.getpid()}.part") for name, path in paths.items()}
    try:
        arrays = {
            name: np.lib.format.open_memmap(
                part,
                mode="w+",
                dtype=features[name].np_dtype,
                shape=(len(source), *features[name].shape),
            )
            for name, part in parts.items()
        }
        for start in range(0, len(source), 1024):
            rows = range(start, min(start + 1024, len(source)))
            for row, record in zip(rows, source.__getitems__(rows), strict=True):
                for name, array in arrays.items():
                    array[row] = record[name]
        for array in arrays.values():
            array.flush()
        for name, part in parts.items():
            part.replace(paths[name])
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
