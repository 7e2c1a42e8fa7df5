"""A model measured on whole splits."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from data.pipeline import eval_batches
from data.task import Split, Task

from ..model.objective import Totals
from .engine import Compiled, Engine
from .placement import Placement
from .step import TrainState


class Evaluation:
    """Sums losses and right answers over a split.

    Batches have one size for all splits, so that one program serves them: at most `most` sequences,
    and no more than the smaller of the splits for validation and test has.
    """

    def __init__(self, task: Task, most: int, engine: Engine, placement: Placement):
        sizes = (len(task.splits[name]) for name in ("validation", "test"))
        self._size = placement.batch_size(min(most, *sizes))
        self._engine, self._placement = engine, placement

    def totals(self, state: TrainState, split: Split, limit: int | None = None) -> Totals:
        """Sums over a split, or over its first `limit` batches; does not wait for them."""
        totals = self._engine.zero()
        for batch in islice(self._batches(split), limit):
            totals = self._engine.evaluate(state, totals, batch)
        return totals

    def compile(self, state: TrainState, split: Split) -> Compiled:
        """Compile the programs of `totals` for a state of these shapes."""
        return self._engine.compile_eval(state, next(self._batches(split)))

    def _batches(self, split: Split) -> Iterator[Any]:
        return map(self._placement.split, eval_batches(split, self._size, self._placement.shard))
