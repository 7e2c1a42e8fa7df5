"""The looks of the automatic mode: measure, decide, cut, judge and take back."""

import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx

from data.task import Split

from ..model.objective import Totals
from ..model.padding import Padding, same_structure
from ..shrinking.automatic import Automatic
from .ahead import Ahead
from .checkpoint import has_maps, shapes_of
from .cutting import Cutting
from .rollback import Rollback
from .saves import Saves
from .session import Session
from .shrinks import Shrinks
from .trial import Trial


class Looks:
    """Inspects a run at the planned steps, and cuts the states that it can spare."""

    def __init__(
        self,
        session: Session,
        automatic: Automatic,
        cutting: Cutting,
        ahead: Ahead,
        shrinks: Shrinks,
        saves: Saves,
        trial: Trial,
        rollback: Rollback,
    ):
        self._session, self._automatic, self._cutting = session, automatic, cutting
        self._ahead, self._shrinks, self._saves = ahead, shrinks, saves
        self._trial, self._rollback = trial, rollback

    def look_if_due(self) -> bool:
        """Judge the cut on trial and make another look if it is due. Returns whether a cut was
        made."""
        session, automatic = self._session, self._automatic
        is_judged, is_due = automatic.is_judged(session.step), automatic.is_due(session.step)
        if not is_judged and not is_due:
            return False
        started = time.perf_counter()
        with session.clock.phase("shrink"):
            pays = self._ahead.could_pay
            seen = automatic.seen(session.step, session.sizes, session.measure, pays)
        if is_judged:
            fails = automatic.verdict(seen)
            if fails is not None:
                self._take_back(fails, seen.loss)
                return False
            self._tell("held", "the cut holds", seen.loss, seen.trivial, started)
        if not is_due:
            return False
        asked = automatic.question(seen)
        if isinstance(asked, str):
            automatic.memory = automatic.decision(seen, asked).memory
            self._tell("wait", asked, seen.loss, seen.trivial, started)
            return False
        made: list[Any] = []

        def decide(demanded: Sequence[int]) -> Sequence[int] | None:
            made.append(automatic.decision(seen, asked, demanded))
            return made[-1].ranks

        self._shrinks.end_rehearsal()
        with session.clock.phase("shrink"):
            policy = automatic.search(session.model, seen, asked, self._sums, decide)
            planned = self._cutting.plan(session.state, session.step, policy)
        (decided,) = made
        is_cut = any(row.cut is not None for row in planned.layers)
        if not is_cut and decided.ranks is None:
            automatic.memory = decided.memory
        else:
            automatic.note(seen)
        if not is_cut:  # where something was to be cut, ties have kept it all
            self._tell("wait", decided.why, seen.loss, seen.trivial, started)
            return False
        with session.clock.phase("checkpoint"):
            self._trial.save(session.step, session.state, self._saves.metadata())
        automatic.memory = decided.memory
        self._tell("cut", decided.why, seen.loss, seen.trivial, started)
        self._shrinks.shrink(planned, decided.why)
        return True

    def _tell(self, decision: str, why: str, loss: float, trivial: float, started: float) -> None:
        self._session.emit(
            "look",
            decision=decision,
            why=why,
            loss=loss,
            trivial=trivial,
            duration=time.perf_counter() - started,
        )

    def _sums(self, model: Any, split: Split) -> Totals:
        """Sums over `split` for a smaller model, in the program that there is. Where the cut adds
        maps, this is a program of the same sizes with maps, which is compiled once."""
        session = self._session
        params, larger = eqx.filter(model, eqx.is_array), session.held.wide.params
        if not same_structure(larger, params):
            larger = shapes_of(session.model, session.held.width, has_maps(model))
        wide = Padding(larger, params).widen(params)
        state = session.held.wide._replace(params=wide)
        return session.evaluation.totals(state, split)

    def _take_back(self, why: str, loss: float) -> None:
        session, trial = self._session, self._automatic.memory.on_trial
        assert trial is not None
        failed = {
            "from_step": session.step,
            "tried": session.sizes,
            "measured": loss,
            "needed": trial.loss,
            "why": why,
        }
        self._trial.begin_taking_back(failed, session.placement.is_first)
        self._rollback.take_back()
