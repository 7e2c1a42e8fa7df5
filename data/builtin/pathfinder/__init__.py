"""Pathfinder: do the two discs sit on the ends of one dashed contour?

Linsley et al. 2018, https://arxiv.org/abs/1805.08315; Tay et al. 2021 (Long Range Arena).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ...checks import check_at_least, check_choice, check_kinds, check_workers
from ...store.places import Places
from ...store.release import unpack_release
from ...task import Split, Task, cell_baseline, majority_baseline
from .official import find_metadata, release_folder
from .pictures import DiscCells


@dataclass(frozen=True)
class PathfinderConfig:
    """The kind and the number of Pathfinder pictures."""

    source: Literal["official", "generated"] | None = None
    """`official`: from --data-dir, else the release is downloaded (7.7 GB); `generated`: drawn
    here, by the same procedure; None: official with --data-dir, generated without."""
    resolution: Literal[16, 32, 64, 128] = 32
    """Side of the pictures in pixels; a sequence has resolution^2 steps."""
    contour_length: int = 14
    """Dashes of a contour: 6 is easy, 9 medium, 14 hard; at most 5 at resolution 16."""
    train: int = 40_000
    """Pictures to draw for training. With official pictures, all of those are used instead."""
    validation: int = 2_000
    """Pictures to draw for validation."""
    test: int = 4_000
    """Pictures to draw for testing."""
    seed: int = 0
    """Seed of the drawn pictures, and of the split of the official ones."""
    workers: int | None = None
    """Processes that draw pictures (None: one per core; 1: only this one). The pictures do not
    depend on it."""

    def __post_init__(self):
        check_choice(self, "resolution", (16, 32, 64, 128))
        check_choice(self, "source", ("official", "generated", None))
        check_kinds(self)
        longest = 5 if self.resolution == 16 else 14
        if not 2 <= self.contour_length <= longest:
            raise ValueError(
                f"contour_length must be between 2 and {longest} at resolution "
                f"{self.resolution}, got {self.contour_length}"
            )
        check_at_least(self, train=1, validation=1, test=1, seed=0)
        check_workers(self.workers)
        if self.source == "official":
            release_folder(self.resolution, self.contour_length)


@dataclass(frozen=True)
class PathXConfig:
    """The kind and the number of Path-X pictures of 128x128 pixels."""

    source: Literal["official", "generated"] | None = None
    """`official`: from --data-dir, else the release is downloaded (7.7 GB); `generated`: drawn
    here, by the same procedure; None: official with --data-dir, generated without."""
    contour_length: int = 14
    """Dashes of a contour: 6 is easy, 9 medium, 14 hard."""
    train: int = 20_000
    """Pictures to draw for training. With official pictures, all of those are used instead."""
    validation: int = 1_000
    """Pictures to draw for validation."""
    test: int = 2_000
    """Pictures to draw for testing."""
    seed: int = 0
    """Seed of the drawn pictures, and of the split of the official ones."""
    workers: int | None = None
    """Processes that draw pictures (None: one per core; 1: only this one). The pictures do not
    depend on it."""

    def __post_init__(self):
        check_kinds(self)
        _ = self.pictures

    @property
    def pictures(self) -> PathfinderConfig:
        """The same pictures as a kind of Pathfinder."""
        return PathfinderConfig(resolution=128, **vars(self))


def load_pathx(config: PathXConfig, places: Places) -> Task:
    """Path-X as a task: Pathfinder in 16384 steps, drawn, or read from `pathfinder128`."""
    return replace(load_pathfinder(config.pictures, places), name="pathx")


def load_pathfinder(config: PathfinderConfig, places: Places) -> Task:
    """Pathfinder as a task: resolution^2 steps of one value in [-1, 1], 2 classes.

    The pictures are drawn, once, and kept under `cache_dir`; or read from the folder of the Long
    Range Arena release (`pathfinder32`, say, or its parent) that `data_dir` names; or, with source
    official and no such folder, from the release, which is downloaded. Official pictures are read
    in full and split 80/10/10. The baselines of drawn pictures measure the information about the
    label in the positions of the discs: little, since the pictures are chosen for this. Raises
    FileNotFoundError if files are not available, ValueError when one of them is damaged.
    """
    from ...store.files import (  # 0.5 s to import
        is_official,
        prepare_from_files,
        prepare_without_files,
    )
    from .builder import Pathfinder

    name = f"r{config.resolution}_c{config.contour_length}_s{config.seed}"
    if is_official(config.source, places):
        kind = config.resolution, config.contour_length
        prepared = prepare_from_files(
            Pathfinder,
            config,
            name,
            lambda folder: find_metadata(folder, *kind),
            partial(unpack_release, release_folder(*kind)),
            places,
        )
    else:
        name += f"_n{config.train}_{config.validation}_{config.test}"
        prepared = prepare_without_files(Pathfinder, config, name, "with source generated", places)
    arrays = prepared.splits
    splits = {
        split: Split(
            inputs=features["image"].reshape(len(features["label"]), -1, 1),
            labels=features["label"],
            offset=127.5,
            scale=1 / 127.5,
        )
        for split, features in arrays.items()
    }
    return Task(
        name="pathfinder",
        length=config.resolution**2,
        input_kind="real",
        input_size=1,
        classes=2,
        splits=splits,
        baselines=_baselines(arrays, splits, config.resolution),
        notes=tuple(prepared.metadata["notes"]),
    )


def _baselines(arrays: Mapping, splits: dict[str, Split], resolution: int) -> dict[str, float]:
    train, test = splits["train"], splits["test"]
    baselines = {"majority": majority_baseline(train, test)}
    if "discs" in arrays["train"]:
        seen, asked = arrays["train"]["discs"], arrays["test"]["discs"]
        for name, rows, columns in (("disc distance", 32, 1), ("disc positions", 16, 6)):
            cells = DiscCells.fit(seen, resolution, rows, columns)
            baselines[name] = cell_baseline(
                cells.index(seen), train.labels, cells.index(asked), test.labels
            )
    return baselines
