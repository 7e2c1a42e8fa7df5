"""The batches of a run, drawn while the device works on earlier ones."""

import time
from collections.abc import Callable

from data.pipeline import train_batch
from data.task import Batch, Split

from .clock import Clock
from .placement import Placement


class Feed:
    """The training batches of each dispatch, the next one drawn ahead.

    Time in which the device waits for its batches counts as "host".
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        dispatch: int,
        clock: Clock,
        placement: Placement,
    ):
        self._arguments = split, batch_size, seed
        self._dispatch, self._clock, self._placement = dispatch, clock, placement
        self._ahead: tuple[int, Batch] | None = None

    def batches(self, step: int) -> Batch:
        """The batches, on the device, of the dispatch that begins after `step` steps."""
        if self._ahead is None or self._ahead[0] != step:
            with self._clock.phase("host"):
                self._ahead = step, self._draw(step)
        return self._ahead[1]

    def look_ahead(self, step: int, idle: Callable[[], bool]) -> None:
        """Draw the batches that `batches(step)` will return. `idle` says whether the device is
        done.

        Only inside the clock's phase "train".
        """
        start = time.perf_counter()
        self._ahead = step, self._draw(step)
        if idle():
            self._clock.move(time.perf_counter() - start, "train", "host")

    def _draw(self, step: int) -> Batch:
        place = self._placement
        return place.split(train_batch(*self._arguments, step, self._dispatch, place.shard), axis=1)
