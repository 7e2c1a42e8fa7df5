"""Drawing pictures on several cores, the same ones on any number of them."""

import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from .pathfinder_geometry import GEOMETRIES
from .pathfinder_pictures import Acceptance, draw_pictures

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images [n, side, side] uint8, labels [n] int32, discs [n, 2, 2] uint8."""


@dataclass(frozen=True)
class Job:
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


def draw_in_parallel(job: Job, count: int, workers: int | None = None) -> Iterator[Batch]:
    """`count` pictures in batches, in an order that does not depend on `workers`.

    `workers` processes (None: one per core, but no more than there are chunks) are spawned, not
    forked, because JAX has threads; with 1 the pictures are drawn here. Where no process can be
    spawned, for want of a `if __name__ == "__main__"` in the main script, say, a warning is given
    and they are drawn here as well.
    """
    chunks = [
        (index, min(job.chunk, count - start))
        for index, start in enumerate(range(0, count, job.chunk))
    ]
    workers = min(workers or len(os.sched_getaffinity(0)), len(chunks))
    done = 0
    if workers > 1:
        try:
            for batch in _spawned(job, chunks, workers):
                yield batch
                done += 1
        except BrokenProcessPool:
            warnings.warn(
                "no worker processes could be started, so pictures are drawn in this one: guard "
                'the main script with `if __name__ == "__main__":`, or ask for workers=1',
                RuntimeWarning,
                stacklevel=2,
            )
    for chunk in chunks[done:]:
        yield job.draw(*chunk)


def _spawned(job: Job, chunks: list[tuple[int, int]], workers: int) -> Iterator[Batch]:
    """The batches in order, with a bounded number of them waiting."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        waiting = deque()
        for chunk in chunks:
            waiting.append(pool.submit(job.draw, *chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
