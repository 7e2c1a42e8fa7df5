"""The automatic mode of a run: its measurements and its memory."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compress.policies.automatic import (
    Decision,
    Question,
    decision,
    has_learned,
    is_due,
    question,
    verdict,
)
from compress.policies.dial import Dial
from compress.policies.looks import (
    Memory,
    Seen,
    certainty_of,
    held,
    is_judged,
    look_steps,
    noted,
    taken_back,
    trial_steps,
)
from compress.policies.search import Decided, on_training_too
from compress.shrink.auto import enough_for
from data.task import Split, Task

from ..model.objective import OBJECTIVES, Totals
from ..settings.config import CompressionConfig, RunConfig
from .reduction import calibration_split
from .trivial import trivial_loss


class Automatic:
    """Inspects a run, and decides on cuts. `memory` is its whole state.

    `judged` are the sequences of the validation split whose loss decides: four times as many as
    states are weighed on, or twice as many of a text, where each character is judged. The last cut
    cannot be made good by training. It is confirmed on `decisive`, four times as many again. On the
    sequences `weighed` for the states, which are trained on, a cut must not change much either.
    """

    def __init__(self, config: RunConfig[Any, Any], task: Task):
        compression = config.compression
        self.dial = dial_of(compression)
        validation = task.splits["validation"]
        each = JUDGED_OF_TEXT if task.kind == "language" else JUDGED
        size = each * compression.calibration
        self.judged = _chosen(config, validation, size)
        self.decisive = _chosen(config, validation, DECISIVE * size)
        self.weighed = calibration_split(config, task.splits["train"])
        self.memory = Memory()
        self.stops = tuple(sorted({*look_steps(config.steps), *trial_steps(config.steps)}))
        self._task, self._total = task, config.steps
        self._objective = OBJECTIVES[task.kind].of(task)
        self._measure = self._objective.measure
        self._multiple, self._across = compression.multiple, compression.method == "data"
        self._trivial: float | None = None
        self._value: float | None = None

    @property
    def cut_at(self) -> int | None:
        """The step of the last cut that has not been taken back, None if there is none."""
        return self.memory.cut_at

    def is_due(self, step: int) -> bool:
        """Whether a look is due after `step`."""
        return is_due(self.dial, self.memory, step, self._total)

    def is_judged(self, step: int) -> bool:
        """Whether the trial of a cut ends after `step`."""
        return is_judged(self.memory, step, self._total)

    def seen(
        self,
        step: int,
        sizes: Sequence[int],
        measure: Callable[[Split], Totals],
        pays: bool = True,
    ) -> Seen:
        """The measurements of a look after `step`; waits for the device.

        `measure(split)` are the sums over `split`. `pays` says whether an early cut could earn its
        compilation. At a late look more sequences may show that something is learned.
        """
        if self._trivial is None:
            self._trivial = trivial_loss(self._task, self.judged)
        totals = measure(self.judged)
        measured = self._objective.report(totals)
        loss, self._value = measured["loss"], measured[self._measure.key]
        seen = Seen(
            step,
            self._total,
            tuple(sizes),
            loss,
            self._trivial,
            unit=1.0 if self._measure.is_share else loss,
            beats_baselines=self._beats(self._value),
            clearly_better=self._clearly_beats(self._value, self.judged),
            pays=pays,
            certainty=certainty_of(float(totals.number)),
        )
        if not seen.is_late or not self._measure.is_share or has_learned(self.memory, seen):
            return seen
        value = self._objective.report(measure(self.decisive))[self._measure.key]
        return replace(seen, clearly_better=self._clearly_beats(value, self.decisive))

    def _beats(self, value: float) -> bool:
        """Whether `value` is better than that of every trivial predictor that is known."""
        better, known = self._measure.better, self._task.baselines.values()
        return all(better(value, of_it) and value != of_it for of_it in known)

    def _clearly_beats(self, share: float, judged: Split) -> bool:
        """Whether a `share` of right answers on `judged` is above that of every trivial predictor
        by more than chance: by `CHANCE` of its standard errors."""
        known = list(self._task.baselines.values())
        if not self._measure.is_share or not known:
            return False
        limits = (p + CHANCE * math.sqrt(p * (1 - p) / len(judged)) for p in known)
        return share > max(limits)

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
        seen: Seen,
        asked: Question,
        sums: Callable[[Any, Split], Totals],
        decide: Callable[[Sequence[int]], Sequence[int] | None],
    ) -> Decided:
        """The policy that finds the fewest states of `model` and applies `decide` to them.

        `sums(model, split)` are those over `split`, `seen` is the latest result of that method.
        Where accuracy counts, it may not fall further than the loss may rise, give or take one
        sequence. What is trained on may not notice the cut much either (`on_training_too`).
        """
        assert self._value is not None
        speed, now = self.dial.speed, float(seen.loss)
        held_back = self._loss(asked, sums, self.judged, (now, self._value))

        def training(smaller: Any) -> float:
            return self._objective.report(sums(smaller, self.weighed))["loss"]

        return Decided(
            on_training_too(held_back, training, model, now),
            asked.rise,
            decide,
            self._across,
            None if speed is None else enough_for(model, speed),
            close=asked.close,
            most=asked.most,
            now=now,
            guess=self.memory.guess,
            confirm=self._loss(asked, sums, self.decisive) if seen.is_late else None,
        ).gated(1.0)

    def _loss(
        self,
        asked: Question,
        sums: Callable[[Any, Split], Totals],
        split: Split,
        before: tuple[float, float] | None = None,
    ) -> Callable[[Any], float]:
        """The loss on `split`. Where the accuracy falls further below that of `before` than it may,
        the loss is as many times the limit above the loss there. `before` are both numbers, those
        of the first call by default.
        """
        most = max(asked.rise, 1 / len(split)) + 1e-9

        def loss(model: Any) -> float:
            nonlocal before
            measured = self._objective.report(sums(model, split))
            now = measured["loss"], measured[self._measure.key]
            before = now if before is None else before
            fall = (before[1] - now[1]) / most if self._measure.is_share else 0.0
            return max(now[0], before[0] + fall * asked.rise) if fall > 1 else now[0]

        return loss


def dial_of(compression: CompressionConfig) -> Dial:
    """The dial of a configuration."""
    return Dial(compression.loss, compression.smallest, compression.speed)


def _chosen(config: RunConfig[Any, Any], validation: Split, size: int) -> Split:
    rng = np.random.default_rng([config.seed, JUDGED_STREAM])
    rows = rng.choice(len(validation), min(size, len(validation)), replace=False)
    return validation.select(np.sort(rows))


JUDGED, JUDGED_OF_TEXT = 4, 2
"""Sequences that decide, for each one that states are weighed on."""
DECISIVE = 4
"""Sequences that confirm the last cut, for each one that decides."""
CHANCE = 3.0
"""Standard errors that no trivial predictor has above its share by chance."""
JUDGED_STREAM = 7
"""Keeps their choice apart from other uses of the run's seed."""
