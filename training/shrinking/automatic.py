"""The automatic mode of a run: its measurements and its memory."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compress.policies.automatic import (
    TRIAL,
    Decision,
    Dial,
    Memory,
    Question,
    Seen,
    decision,
    held,
    look_steps,
    noted,
    question,
    taken_back,
    trial_steps,
    verdict,
)
from compress.policies.search import Decided
from compress.shrink.auto import enough_for
from data.task import Split, Task

from ..model.objective import OBJECTIVES, Totals
from ..settings.config import CompressionConfig, RunConfig
from .trivial import trivial_loss


class Automatic:
    """Inspects a run, and decides on cuts. `memory` is its whole state.

    `judged` are the sequences of the validation split whose loss decides: four times as many as
    states are weighed on.
    """

    def __init__(self, config: RunConfig[Any, Any], task: Task):
        compression = config.compression
        self.dial = dial_of(compression)
        self.judged = _judged_split(config, task.splits["validation"])
        self.memory = Memory()
        self.steps = look_steps(config.steps)
        self.stops = tuple(sorted({*self.steps, *trial_steps(config.steps)}))
        self._task, self._total = task, config.steps
        self._objective = OBJECTIVES[task.kind].of(task)
        self._measure = self._objective.measure
        self._multiple, self._across = compression.multiple, compression.method == "data"
        self._trivial: float | None = None

    @property
    def cut_at(self) -> int | None:
        """The step of the last cut that has not been taken back, None if there is none."""
        return self.memory.cut_at

    def is_judged(self, step: int) -> bool:
        """Whether the trial of a cut ends after `step`."""
        trial = self.memory.on_trial
        return trial is not None and step >= min(
            trial.step + max(1, round(TRIAL * self._total)), self._total
        )

    def seen(self, step: int, sizes: Sequence[int], totals: Totals) -> Seen:
        """The measurements of a look after `step`, from the sums over `judged`; waits for the
        device."""
        if self._trivial is None:
            self._trivial = trivial_loss(self._task, self.judged)
        measured, better = self._objective.report(totals), self._measure.better
        loss, value = measured["loss"], measured[self._measure.key]
        return Seen(
            step,
            self._total,
            tuple(sizes),
            loss,
            self._trivial,
            unit=1.0 if self._measure.is_share else loss,
            beats_baselines=all(
                better(value, known) and value != known for known in self._task.baselines.values()
            ),
        )

    def verdict(self, seen: Seen) -> str | None:
        """Why the cut on trial fails; None if it holds, which is then stored."""
        fails = verdict(self.dial, self.memory, seen)
        if fails is None:
            self.memory = held(self.memory)
        return fails

    def question(self, seen: Seen) -> Question | str:
        """The search for this look, or the reason not to cut."""
        return question(self.dial, self.memory, seen)

    def decision(
        self, seen: Seen, asked: Question | str, demanded: Sequence[int] | None = None
    ) -> Decision:
        """The decision of this look (`compress.policies.automatic.decision`)."""
        return decision(self.dial, self.memory, seen, asked, demanded, self._multiple)

    def note(self, seen: Seen) -> None:
        """Store this look alone, in case its cut is taken back."""
        self.memory = noted(self.memory, seen)

    def take_back(self) -> None:
        """Store that the cut after the current memory has been taken back."""
        self.memory = taken_back(self.memory)

    def search(
        self,
        model: Any,
        asked: Question,
        sums: Callable[[Any], Totals],
        decide: Callable[[Sequence[int]], Sequence[int] | None],
    ) -> Decided:
        """The policy that finds the fewest states of `model` and applies `decide` to them.

        `sums(model)` are those over `judged`. Where accuracy counts, it may not fall further than
        the loss may rise, give or take one sequence.
        """
        before: list[float] = []
        most = max(asked.rise, 1 / len(self.judged)) + 1e-9

        def loss(model: Any) -> float:
            measured = self._objective.report(sums(model))
            value = measured[self._measure.key]
            if not before:
                before.append(value)
            falls = self._measure.is_share and before[0] - value > most
            return np.inf if falls else measured["loss"]

        speed = self.dial.speed
        return Decided(
            loss,
            asked.rise,
            decide,
            self._across,
            None if speed is None else enough_for(model, speed),
            close=asked.close,
        ).gated(1.0)


def dial_of(compression: CompressionConfig) -> Dial:
    """The dial of a configuration."""
    return Dial(compression.loss, compression.smallest, compression.speed)


def _judged_split(config: RunConfig[Any, Any], validation: Split) -> Split:
    rng = np.random.default_rng([config.seed, JUDGED_STREAM])
    size = min(JUDGED * config.compression.calibration, len(validation))
    return validation.select(np.sort(rng.choice(len(validation), size, replace=False)))


JUDGED = 4
"""Sequences that decide, for each one that states are weighed on."""
JUDGED_STREAM = 7
"""Keeps their choice apart from other uses of the run's seed."""
