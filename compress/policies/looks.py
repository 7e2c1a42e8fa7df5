"""The looks of the automatic mode: when they are, what they see, and what is remembered of them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

LATE = 0.85
"""The look from which on a cut leaves no spare states for further learning."""
PACE = 0.65
"""The look before it, which shows the pace of learning."""
LOOKS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, PACE, LATE, 0.9)
"""The looks, as shares of the run. The last one is only for a late cut that has been taken back, or
that was not tried. Those between the last early cut that there can be and `PACE` are left out."""
TRIAL = 0.05
"""Share of the run for which a cut is on trial."""
ENOUGH = 128
"""Sequences, or their steps, that can judge a rise of the loss by the dial. Where there are fewer,
their mean is less certain, and a cut may cost less, by the root of their share."""


@dataclass(frozen=True)
class Seen:
    """The numbers of a run at a look."""

    step: int
    """Steps done."""
    steps: int
    """Steps of the whole run."""
    sizes: tuple[int, ...]
    """States of each layer."""
    loss: float | int
    """On held-back sequences, the same at every look."""
    trivial: float | int
    """The loss of the best constant answer on them."""
    unit: float | int
    """The loss that 100 % of the dial mean."""
    beats_baselines: bool = True
    """Whether the model is better than every trivial predictor that is known."""
    clearly_better: bool = False
    """Whether it is so by more than chance, whatever the loss of an overconfident model."""
    pays: bool = True
    """Whether a program for fewer states could earn its compilation in the rest of the run."""
    certainty: float | int = 1.0
    """The share of the dial that a cut may use, at most 1: less where few sequences judge it."""

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        return self.step / self.steps

    @property
    def is_late(self) -> bool:
        """Whether little training is left."""
        return self.progress >= LATE - 1e-9


@dataclass(frozen=True)
class OnTrial:
    """A cut that may still be taken back."""

    step: int
    loss: float | int
    """Before the cut."""
    sizes: tuple[int, ...]
    """Before the cut."""


@dataclass(frozen=True)
class Memory:
    """The memory of earlier looks. `plain` and `of` convert it to JSON and back."""

    looks: tuple[tuple[int, float], ...] = ()
    """Step and loss of every look."""
    slowed: bool = False
    """Whether learning had slowed down at a look since the last cut."""
    guess: int | None = None
    """About how many states will be needed, where that is known."""
    on_trial: OnTrial | None = None
    cut_at: int | None = None
    """The step of the last cut that has not been taken back."""
    taken_back: int = 0
    failed_at: int | None = None
    """The step of the last cut that has been taken back."""
    waits: bool = False
    """Whether the last look tried no cut."""
    was_clearly_better: bool = False
    pays: bool = True
    """Whether an early cut could earn its compilation at the last look."""

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> "Memory":
        """From what `plain` gave, through JSON or not; a new one from None."""
        if plain is None:
            return cls()
        known = {field.name: plain[field.name] for field in fields(cls) if field.name in plain}
        trial = known.get("on_trial")
        if trial is not None:
            known["on_trial"] = OnTrial(trial["step"], trial["loss"], tuple(trial["sizes"]))
        known["looks"] = tuple((step, loss) for step, loss in plain["looks"])
        return cls(**known)


def certainty_of(number: float | int) -> float:
    """`Seen.certainty` where the loss is a mean over so many sequences or steps."""
    return min(1.0, math.sqrt(max(number, 1) / ENOUGH))


def look_steps(steps: int) -> tuple[int, ...]:
    """The steps after which a run of so many steps is looked at."""
    return tuple(sorted({round(share * steps) for share in LOOKS} - {0, steps}))


def is_judged(memory: Memory, step: int, steps: int) -> bool:
    """Whether the trial of a cut ends after `step`."""
    trial = memory.on_trial
    return trial is not None and step >= trial_end(trial.step, steps)


def trial_end(step: int, steps: int) -> int:
    """The step after which a cut at `step` is judged."""
    return min(step + max(1, round(TRIAL * steps)), steps)


def trial_steps(steps: int) -> tuple[int, ...]:
    """The steps after which a cut may have to be judged."""
    return tuple(sorted({trial_end(step, steps) for step in look_steps(steps)}))


def noted(memory: Memory, seen: Seen) -> Memory:
    """`memory` with this look, at which a cut is tried."""
    looks = (*memory.looks, (seen.step, seen.loss))
    better = memory.was_clearly_better or seen.clearly_better
    return replace(memory, looks=looks, waits=False, was_clearly_better=better, pays=seen.pays)


def held(memory: Memory) -> Memory:
    """`memory` after the cut on trial has been found to hold."""
    return replace(memory, on_trial=None)


def taken_back(memory: Memory) -> Memory:
    """`memory` after a cut has been taken back; `memory` may be from before that cut."""
    failed = memory.looks[-1][0] if memory.on_trial is None else memory.on_trial.step
    again = memory.taken_back + 1
    return replace(memory, on_trial=None, slowed=False, taken_back=again, failed_at=failed)
