"""Pathfinder: do the two discs sit on the ends of one dashed contour? (Linsley et al. 2018, Tay et
al. 2021.)"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .task import Progress, Task


@dataclass(frozen=True)
class PathfinderConfig:
    """Which Pathfinder pictures, and how many."""

    resolution: Literal[16, 32, 64, 128] = 32
    """Side of the pictures in pixels; a sequence has resolution^2 steps."""
    contour_length: int = 14
    """Dashes of a contour: 6 is easy, 9 medium, 14 hard; at most 5 at resolution 16."""
    train: int = 40_000
    """Pictures to generate for training."""
    validation: int = 2_000
    """Pictures to generate for validation."""
    test: int = 4_000
    """Pictures to generate for testing."""
    seed: int = 0
    """Seed of the generated pictures, and of the 80/10/10 split of the official ones."""
    workers: int | None = None
    """Processes that generate pictures (None: one per core; 1: none but this one). Does not change
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


def load_pathfinder(
    config: PathfinderConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """Pathfinder as a task: resolution^2 steps of one value in [-1, 1], 2 classes."""
    raise NotImplementedError("the generator is on its way")
