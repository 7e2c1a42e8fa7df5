"""The decisions of the automatic mode, as functions of numbers alone. A run is inspected a few
times (`.looks`). A look checks whether anything has been learned and whether learning has slowed
down. If it has so at two looks, the caller searches for the fewest states within the dial. A cut is
on trial for a twentieth of the run, and is taken back if the loss on held-back data has risen.

Early cuts save time and leave room; the late one comes when the loss that it costs is about the
loss that stays, and makes the model small.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .dial import Dial
from .looks import LATE, PACE, TRIAL, Memory, OnTrial, Seen, look_steps, noted

LEARNED, CLEARLY_LEARNED = 0.95, 0.9
"""Something has been learned when the loss is below the first share of a constant answer's and
trivial predictors are beaten; when it is below the second; or when they are clearly beaten."""
AHEAD = 0.15
"""Learning has slowed if, at the pace since the look before, the rest of the run would gain less
than this share of the gain so far."""
ROOM = 2.0
"""An early cut keeps this multiple of the needed states, for further learning."""
WORTHWHILE = 0.8
"""An early cut leaves at most this share of the states, since it costs a compilation."""
HARDLY = 0.95
"""A late cut that would leave more than this share of the states is not made."""
CLOSE, CLOSER = 0.2, 0.03
"""How near a search comes to the fewest states, as a share: for cuts with room, and without."""
RECOVERS = 2.0
"""The loss that an early cut may cost when it is judged, in units of the dial: training goes on."""
BOLD = 4.0
"""The loss that further training can recover, in units of the dial, with `smallest`."""

SLOWED = "learning has slowed down; one more look before a cut is tried"


@dataclass(frozen=True)
class Question:
    """The search: the fewest states within a rise of the loss."""

    rise: float
    """How far the loss on held-back sequences may rise."""
    room: float
    """The multiple of the found states that stays."""
    most: float = 1.0
    """The largest share of the states that is worth a cut."""

    @property
    def close(self) -> float:
        """How near the search comes, as a share of the states that stay."""
        return CLOSE if self.room > 1 else CLOSER


@dataclass(frozen=True)
class Decision:
    """The decision of a look."""

    ranks: tuple[int, ...] | None
    """The states that each layer keeps; None without a cut."""
    why: str
    """In words."""
    memory: Memory


def is_due(dial: Dial, memory: Memory, step: int, steps: int) -> bool:
    """Whether a look is due when `step` of `steps` steps are done. Where no cut can be made before
    the end, looks before `PACE` are left out. After the late look there is another one only if it
    tried no cut, or if its cut has been taken back.
    """
    last, late = (memory.looks[-1][0] if memory.looks else 0), LATE * steps - 1e-9
    has_failed = memory.failed_at is not None and memory.failed_at >= late
    is_over = last >= late and not (memory.waits or has_failed)
    first = 0 if _only_late(dial, memory, memory.pays) is None else round(PACE * steps)
    return not is_over and any(last < at <= step and at >= first for at in look_steps(steps))


def has_learned(memory: Memory, seen: Seen) -> bool:
    """Whether the model knows now, or knew at a look, what no trivial answer does."""
    best = min([seen.loss, *(loss for _, loss in memory.looks)])
    share = LEARNED if seen.beats_baselines else CLEARLY_LEARNED
    return best <= share * seen.trivial or seen.clearly_better or memory.was_clearly_better


def question(dial: Dial, memory: Memory, seen: Seen) -> Question | str:
    """The search for this look, or the reason not to cut. `memory` is from before the look."""
    if not math.isfinite(seen.loss):
        return "the loss is not finite"
    if not has_learned(memory, seen):
        return (
            f"nothing is learned yet that a trivial answer does not know: loss {seen.loss:.4g}, "
            f"{seen.trivial:.4g} with the best constant answer; idle states may still be needed"
        )
    share = 0.5**memory.taken_back * seen.certainty
    fast = _still_learns(memory, seen)
    if seen.is_late:
        if fast is not None and not dial.smallest:
            return fast  # the states that are learned last would go first
        rise = (1.0 if dial.smallest else 0.5) * share * dial.loss * seen.unit
        return Question(rise, 1.0, HARDLY)
    why_not = _only_late(dial, memory, seen.pays) or fast
    if why_not is not None:
        return why_not
    if not memory.slowed:
        return SLOWED
    bold = dial.smallest and seen.progress + 2 * TRIAL < LATE
    room = 1.0 if dial.smallest or dial.speed is not None else ROOM
    return Question(
        (BOLD if bold else 1.0) * share * dial.loss * seen.unit, room, WORTHWHILE / room
    )


def decision(
    dial: Dial,
    memory: Memory,
    seen: Seen,
    asked: Question | str,
    demanded: Sequence[int] | None = None,
    multiple: int = 1,
) -> Decision:
    """The cut at this look. `memory` is from before the look, `asked` is the result of `question`.
    `demanded` are the states that the search has found, None without a search. The ranks of an
    early cut are rounded up to a `multiple`.
    """
    after = replace(
        noted(memory, seen),
        slowed=memory.slowed or asked == SLOWED,
        waits=isinstance(asked, str),
    )
    if isinstance(asked, str):
        return Decision(None, asked, after)
    assert demanded is not None
    found = tuple(demanded)
    after = replace(after, guess=None if sum(found) >= sum(seen.sizes) else sum(found))
    kept = found if seen.is_late else _with_room(found, seen.sizes, asked.room, multiple)
    why = _objection(memory, seen, found, kept, asked)
    if why is not None:
        return Decision(None, why, after)
    trial = OnTrial(seen.step, seen.loss, seen.sizes)
    after = replace(after, slowed=False, on_trial=trial, cut_at=seen.step)
    more = "with room to learn" if asked.room > 1 else "rounded up"
    room = "" if kept == found else f"; {more} {_states(kept)} are kept"
    when = "little training is left" if seen.is_late else "learning has slowed"
    return Decision(
        kept,
        f"{when}; {_states(found)} of {_states(seen.sizes)} states are enough for a rise of the "
        f"held-back loss by {asked.rise:.2g}{room}",
        after,
    )


def verdict(dial: Dial, memory: Memory, seen: Seen) -> str | None:
    """Why the cut on trial fails; None if it holds or there is none. The loss may exceed that
    before the cut by the dial (`RECOVERS` times the dial, if the cut was early), plus its largest
    rise between looks without a cut, as a share of it.
    """
    trial = memory.on_trial
    if trial is None:
        return None
    losses = [loss for step, loss in memory.looks if step <= trial.step and math.isfinite(loss)]
    drift = max([0.0, *(new / old - 1 for old, new in pairwise(losses) if old > 0)])
    is_early = trial.step < LATE * seen.steps - 1e-9
    most = trial.loss * (1 + drift) + (RECOVERS if is_early else 1.0) * dial.loss * seen.unit
    if seen.loss <= most:
        return None
    return (
        f"the held-back loss is {seen.loss:.4g} at step {seen.step}, {trial.loss:.4g} before the "
        f"cut; the limit is {most:.4g}"
    )


def _only_late(dial: Dial, memory: Memory, pays: bool) -> str | None:
    """Why no cut can be made before the end any more, None if one can; `pays` as in `Seen`."""
    if memory.taken_back > (1 if dial.smallest else 0):
        cuts = "two cuts have" if dial.smallest else "a cut has"
        return f"{cuts} been taken back: no further cut before the end"
    if dial.smallest:
        return None
    if memory.cut_at is not None and dial.speed is None:
        return "an early cut has been made: no further cut before the end"
    if not pays:
        return "too little is left for a program of fewer states: no cut before the end"
    return None


def _still_learns(memory: Memory, seen: Seen) -> str | None:
    """Why learning has not slowed down yet, None if it has."""
    before = [(step, loss) for step, loss in memory.looks if math.isfinite(loss)]
    if not before:
        return f"the first look: loss {seen.loss:.4g}"
    step, loss = before[-1]
    ahead = (loss - seen.loss) * (seen.steps - seen.step) / (seen.step - step)
    if ahead <= AHEAD * max(0.0, seen.trivial - seen.loss):
        return None
    return (
        f"learning is still fast: loss {seen.loss:.4g}, {loss:.4g} at the look before; the rest of "
        f"the run would gain {ahead:.2g} at this pace"
    )


def _objection(
    memory: Memory, seen: Seen, found: tuple[int, ...], kept: tuple[int, ...], asked: Question
) -> str | None:
    """Why what a search has found is not cut now, None if it is."""
    now, wanted, left = sum(seen.sizes), sum(found), sum(kept)
    if wanted >= now:
        least = max(1, math.ceil((1 - asked.most) * now - 1e-9))
        return f"dropping {least} of {now} states raises the held-back loss above {asked.rise:.2g}"
    if seen.is_late:
        few = f"only {now - left} of {now} states could be dropped"
        return few if left > HARDLY * now else None
    if left > WORTHWHILE * now:
        return (
            f"{wanted} of {now} states seem enough; with room to learn {left} would stay: not "
            "worth a program of its own yet"
        )
    return None


def _with_room(
    found: tuple[int, ...], sizes: tuple[int, ...], room: float, multiple: int
) -> tuple[int, ...]:
    """The states that an early cut keeps: `room` times those that are needed."""

    def one(rank: int, size: int) -> int:
        wanted = math.ceil(room * rank - 1e-9)
        return min(size, -(-wanted // multiple) * multiple)

    return tuple(one(*of_layer) for of_layer in zip(found, sizes, strict=True))


def _states(sizes: Sequence[int]) -> str:
    return "+".join(map(str, sizes)) if len(sizes) <= 4 else f"{sum(sizes)}"
