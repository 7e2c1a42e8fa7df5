"""Generation of data on several cores, independent of their number."""

import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, runtime_checkable

Chunk = tuple[int, int]
"""The number of a chunk, and how many of its samples are needed."""


@runtime_checkable
class Job(Protocol):
    """Samples of one kind, in chunks with separate random numbers. Must be picklable."""

    def draw(self, index: int, count: int) -> Any:
        """The first `count` samples of chunk `index`: a pure function of both."""
        ...


def chunks_of(count: int, size: int) -> list[Chunk]:
    """The chunks, of `size` but for the last, that hold `count` samples."""
    return [(index, min(size, count - start)) for index, start in enumerate(range(0, count, size))]


def draw_in_parallel(job: Job, chunks: Iterable[Chunk], workers: int | None = None) -> Iterator:
    """`job.draw` of each chunk, in their order. `chunks` may be endless: it is read as needed.

    `workers` processes (None: one per core, but no more than there are chunks, where that is known)
    are spawned, not forked, because JAX has threads; with 1 the samples are made here. If no
    process can be spawned, for example without `if __name__ == "__main__"` in the main script, a
    warning is given and they are made here too.
    """
    workers = workers or len(os.sched_getaffinity(0))
    if isinstance(chunks, list):
        workers = min(workers, len(chunks))
    waiting: deque[Chunk] = deque()
    rest = iter(chunks)
    if workers > 1:
        try:
            yield from _spawned(job, rest, waiting, workers)
        except BrokenProcessPool:
            warnings.warn(
                "no worker processes could be started, so data is made in this one: guard the "
                'main script with `if __name__ == "__main__":`, or ask for workers=1',
                RuntimeWarning,
                stacklevel=2,
            )
    while waiting:
        yield job.draw(*waiting.popleft())
    for chunk in rest:
        yield job.draw(*chunk)


def _spawned(job: Job, chunks: Iterator[Chunk], waiting: deque[Chunk], workers: int) -> Iterator:
    """The results in order, with a bounded number under way; their chunks stand in `waiting`."""
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    results = deque()
    try:
        for chunk in chunks:
            waiting.append(chunk)
            results.append(pool.submit(job.draw, *chunk))
            if len(results) > 2 * workers:
                result = results.popleft().result()
                waiting.popleft()
                yield result
        while results:
            result = results.popleft().result()
            waiting.popleft()
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
