"""Pathfinder pictures in chunks, as `workers` draws them."""

from dataclasses import dataclass

import numpy as np

from .geometry import GEOMETRIES
from .pictures import Acceptance, draw_pictures

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images [n, side, side] uint8, labels [n] int32, discs [n, 2, 2] uint8."""


@dataclass(frozen=True)
class PathfinderJob:
    """Pictures of one kind. They come in chunks, each with random numbers of its own."""

    resolution: int
    contour_length: int
    seed: int
    acceptance: Acceptance
    """The same for all jobs that make up one data set."""
    stream: int = 0
    """Jobs that differ in this give different pictures."""

    @property
    def chunk(self) -> int:
        """Pictures in a chunk. They are drawn in lock-step: few are slow, many take memory."""
        return {16: 4096, 32: 2048, 64: 1024, 128: 512}[self.resolution]

    def draw(self, index: int, count: int) -> Batch:
        """The first `count` pictures of chunk `index`."""
        geometry = GEOMETRIES[self.resolution]
        rng = np.random.default_rng(
            [self.seed, self.resolution, self.contour_length, self.stream, index]
        )
        pictures = draw_pictures(geometry, self.contour_length, self.acceptance, count, rng)
        return pictures.images, pictures.labels, pictures.discs
