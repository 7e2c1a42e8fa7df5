"""Pathfinder: do the two discs sit on the ends of one dashed contour?

Linsley et al. 2018, https://arxiv.org/abs/1805.08315; Tay et al. 2021 (Long Range Arena).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .pathfinder_official import OfficialFolder
from .pathfinder_pictures import DiscCells
from .store import data_cache
from .task import Progress, Split, Task, cell_baseline, majority_baseline


@dataclass(frozen=True)
class PathfinderConfig:
    """Which Pathfinder pictures, and how many."""

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
    """Processes that draw pictures (None: one per core; 1: none but this one). Does not change
    them."""

    def __post_init__(self):
        if self.resolution not in (16, 32, 64, 128):
            raise ValueError(f"resolution must be 16, 32, 64 or 128, got {self.resolution}")
        longest = 5 if self.resolution == 16 else 14
        if not 2 <= self.contour_length <= longest:
            raise ValueError(
                f"contour_length must be between 2 and {longest} at resolution "
                f"{self.resolution}, got {self.contour_length}"
            )
        for name in ("train", "validation", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1 or None, got {self.workers}")


@dataclass(frozen=True)
class PathXConfig:
    """Which Path-X pictures, of 128x128 pixels, and how many."""

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
    """Processes that draw pictures (None: one per core; 1: none but this one). Does not change
    them."""

    def __post_init__(self):
        _ = self.pictures

    @property
    def pictures(self) -> PathfinderConfig:
        """The same pictures as a kind of Pathfinder."""
        return PathfinderConfig(resolution=128, **vars(self))


def load_pathx(
    config: PathXConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """Path-X as a task: Pathfinder in 16384 steps, drawn, or read from `pathfinder128`."""
    task = load_pathfinder(
        config.pictures, data_dir=data_dir, cache_dir=cache_dir, progress=progress
    )
    return replace(task, name="pathx")


def load_pathfinder(
    config: PathfinderConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """Pathfinder as a task: resolution^2 steps of one value in [-1, 1], 2 classes.

    Without `data_dir` the pictures are drawn, once, and kept under `cache_dir`. With it they are
    read from the folder of the Long Range Arena release (`pathfinder32`, say, or its parent), all
    of them, split 80/10/10. The baselines of drawn pictures say what the positions of the discs
    tell about the label: little, because the pictures are chosen so.

    Raises FileNotFoundError when `data_dir` lacks files, ValueError when one of them is damaged.
    """
    from .builder import Recipe, prepare  # 0.5 s to import
    from .pathfinder_builder import Pathfinder

    name = f"r{config.resolution}_c{config.contour_length}_s{config.seed}"
    official = None
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
        official = OfficialFolder(folder, config.resolution, config.contour_length)
        name += f"_lra_{official.fingerprint}"
    else:
        name += f"_n{config.train}_{config.validation}_{config.test}"
    recipe = Recipe(name=name, settings=config, source=official, progress=progress)
    prepared = prepare(Pathfinder, recipe, data_cache(cache_dir))
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
