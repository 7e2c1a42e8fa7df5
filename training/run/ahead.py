"""Compilation in the background, ahead of time, while training goes on."""

import time
from collections.abc import Iterator

import jax
import numpy as np

from data.task import Batch, Split

from ..model.network import layer_sizes
from ..settings.schedule import (
    last_shrink,
    rehearsal_step,
    shrink_steps,
    takeover_after,
    takeover_step,
)
from ..shrinking.worth import steps_to_pay, weights_of_states
from .background import Background, Outcome
from .cutting import Cutting
from .engine import Compiled
from .session import Session
from .step import TrainState


class Ahead:
    """Rehearses the first shrink, and compiles the programs of smaller layers.

    Until those programs are there, training goes on in the programs of the larger layers.
    `calibration` are the sequences whose loss is measured before and after a shrink.
    """

    def __init__(self, session: Session, cutting: Cutting, calibration: Split):
        config = session.config
        self._session, self._cutting, self._calibration = session, cutting, calibration
        self.rehearsal_step = rehearsal_step(config.compression, config.steps)
        """The step after which the first shrink is rehearsed, None if it is not."""
        self._shrinks = shrink_steps(config.compression, config.steps)
        self._rehearsal: Background | None = None
        self._compiling: Background | None = None

    def resume(self) -> None:
        """Start the background work for the current step."""
        start = self.rehearsal_step
        if start is not None and start <= self._session.step < self._shrinks[0]:
            self.rehearse()
        self.compile_own_size()

    def rehearse(self) -> None:
        """Try out the first shrink in the background, on a copy of the state as it is now.

        The programs of the shrink are then ready, although its sizes may still differ.
        """
        state = self._session.held.wide
        snapshot = jax.tree.map(lambda x: jax.device_put(np.array(x)), state)
        self._rehearsal = Background(self._rehearse(snapshot))

    def end_rehearsal(self) -> Outcome | None:
        """Wait for the end of the rehearsal; what became of it, None if there is none."""
        outcome, self._rehearsal = self._finished(self._rehearsal), None
        return outcome

    @property
    def takeover_step(self) -> int | None:
        """When programs of the layers' own size take over; None if they do not or have done so."""
        session = self._session
        if not session.held.is_padded:
            return None
        if session.config.compression.mode == "auto":
            to_pay = steps_to_pay(session.config, session.task, session.held.spare)
            return takeover_after(session.config, session.step, self._cutting.cut_at, to_pay)
        return takeover_step(session.config, session.step, session.sizes)

    @property
    def could_pay(self) -> bool:
        """Whether a cut at this step, in mode `auto`, could save the time that its programs take to
        compile: whether one to a single state in each layer would."""
        session = self._session
        spare = session.held.spare + weights_of_states(session.model)
        to_pay = steps_to_pay(session.config, session.task, spare)
        return takeover_after(session.config, session.step, session.step, to_pay) is not None

    def compile_own_size(self) -> None:
        """Compile the programs of the layers' own size in the background, once these sizes are to
        last."""
        session = self._session
        if self.takeover_step is None or self._compiling is not None:
            return
        is_last = last_shrink(session.config, session.step, session.sizes) <= session.step
        if session.config.compression.mode == "auto" or is_last:
            batches = session.feed.batches(session.step)
            self._compiling = Background(self._compile_own_size(session.state, batches))

    def worked_since(self, moment: float) -> bool:
        """Whether anything was done in the background after `moment`."""
        works = (self._rehearsal, self._compiling)
        return any(work is not None and work.worked_since(moment) for work in works)

    def take_over(self) -> None:
        """Go on in programs of the layers' own size; waits until they are compiled."""
        session = self._session
        start = time.perf_counter()
        with session.clock.phase("compile"):
            outcome, self._compiling = self._finished(self._compiling), None
        session.held.hold(session.state)
        session.emit(
            "takeover",
            d_state=session.held.width,
            seconds=outcome.seconds if outcome else 0.0,
            waited=time.perf_counter() - start,
            error=outcome.error if outcome else None,
        )

    def cancel(self) -> None:
        """Stop the background work."""
        for work in (self._rehearsal, self._compiling):
            if work is not None:
                work.cancel()
        self._rehearsal = self._compiling = None

    def _finished(self, work: Background | None) -> Outcome | None:
        """Wait for the background work, and report what it compiled."""
        outcome = None if work is None else work.finish()
        for name, seconds in outcome.compiled if outcome else ():
            self._session.report_compiled(name, seconds, background=True)
        return outcome

    def _rehearse(self, state: TrainState) -> Iterator[Compiled]:
        """Rehearse the first shrink with `state`. Only the programs of the run change."""
        yield self._session.evaluation.compile(state, self._calibration)
        planned = self._cutting.plan(state, self._shrinks[0])
        yield "plan", None
        after, _ = self._cutting.cut(state, planned)
        self._cutting.describe(planned, after, layer_sizes(after))

    def _compile_own_size(self, state: TrainState, batches: Batch) -> Iterator[Compiled]:
        session = self._session
        yield session.engine.compile_train(state, batches)
        yield session.evaluation.compile(state, self._calibration)
