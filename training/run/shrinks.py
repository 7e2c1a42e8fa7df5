"""The shrinks of a run: carried out, guarded, and reported."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from compress import Plan
from data.task import Split

from ..model.network import layer_sizes
from ..model.padding import same_structure
from ..settings.schedule import grace
from ..shrinking.shrinker import Shrinker
from .ahead import Ahead
from .background import Outcome
from .cutting import Cutting
from .held import HeldState
from .session import Session
from .shrink_report import ShrinkReport


@dataclass(frozen=True)
class _Done:
    """A shrink that has been carried out."""

    planned: Plan
    after: Any
    """The model that it makes."""
    loss_before: float
    loss_after: float
    rejected: list[int] | None
    """The sizes of a cut that is rejected since it costs too much; None for an accepted cut."""
    plan_seconds: float
    compress_seconds: float


class Shrinks:
    """Cuts the layers of a run. `calibration` are the sequences on which the cost of a cut is
    measured."""

    def __init__(
        self,
        session: Session,
        shrinker: Shrinker,
        cutting: Cutting,
        ahead: Ahead,
        calibration: Split,
    ):
        self._session, self._shrinker, self._cutting = session, shrinker, cutting
        self._ahead, self._calibration = ahead, calibration

    def end_rehearsal(self) -> None:
        """Wait for the rehearsal, if there is one, and report it."""
        session = self._session
        started = time.perf_counter()
        with session.clock.phase("shrink"):
            rehearsal = self._ahead.end_rehearsal()
        if rehearsal:
            self._report_rehearsal(rehearsal, time.perf_counter() - started)

    def shrink(self, planned: Plan | None = None, why: str | None = None) -> None:
        """Cut every layer as planned; report what it cost and what it changed.

        The plan is that of the configuration unless one is given, with the reason for it.
        """
        session = self._session
        started = time.perf_counter()
        session.reporter.finish()
        self.end_rehearsal()
        with session.clock.phase("shrink"):
            done = self._carry_out(planned)
        reason = {} if why is None else {"why": why}
        session.reporter.late = ShrinkReport(
            session.step,
            partial(self._cutting.describe, done.planned, done.after, session.sizes),
            loss_before=done.loss_before,
            loss_after=done.loss_after,
            rejected=done.rejected,
            plan_seconds=done.plan_seconds,
            compress_seconds=done.compress_seconds,
            duration=time.perf_counter() - started,
            **reason,
        )
        if not session.held.is_padded:  # the next step takes the arrays of the layers
            session.reporter.finish()

    def _carry_out(self, planned: Plan | None) -> _Done:
        """Cut, as planned or to be planned, and take the smaller state unless it costs too much."""
        session = self._session
        losses = [session.measure(self._calibration)]
        start = time.perf_counter()
        before, larger = session.state, session.held.wide.params
        planned = planned or self._cutting.plan(before, session.step)
        self._shrinker.remember(planned)
        planned_at = time.perf_counter()
        after, state = self._cutting.cut(before, planned)
        state, sizes = session.placement.agree(state), layer_sizes(after)
        padded = sizes != session.held.width and grace(session.config) > 0
        padded = padded and same_structure(larger, state.params)
        kept, session.held = session.held, HeldState(state, larger if padded else None)
        cut_at = time.perf_counter()
        losses.append(session.measure(self._calibration))
        loss_before, loss_after = (totals.means()[0] for totals in losses)
        rejected = self._costs_too_much(loss_after - loss_before)
        if rejected:
            session.held = kept
        return _Done(
            planned,
            after,
            loss_before,
            loss_after,
            rejected=sizes if rejected else None,
            plan_seconds=planned_at - start,
            compress_seconds=cut_at - planned_at,
        )

    def _costs_too_much(self, rise: float) -> bool:
        """Whether the guard rejects a cut that raises the loss this much."""
        guard = self._session.config.compression.guard
        if guard is None or self._shrinker.must_cut(self._session.step):
            return False
        return not rise <= guard  # a loss that is not finite does not pass either

    def _report_rehearsal(self, outcome: Outcome, waited: float) -> None:
        self._session.emit("rehearsal", seconds=outcome.seconds, waited=waited, error=outcome.error)
