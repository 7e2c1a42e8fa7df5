"""A run from its configuration to its summary: train, evaluate, shrink, save."""

import time
from pathlib import Path
from typing import Any

import equinox as eqx

from compress import AbstractMethod, AbstractPolicy
from data.task import Task

from ..model.objective import Totals
from ..settings.config import RunConfig
from ..settings.schedule import learning_rates
from ..shrinking.automatic import Automatic
from ..shrinking.describe import describe_spectra
from ..shrinking.reduction import calibration_split
from ..shrinking.shrinker import Shrinker
from ..shrinking.systems import save_systems
from .ahead import Ahead
from .best import Best
from .clock import Clock
from .cutting import Cutting
from .describe import note_phase
from .interrupt import Interrupt, Interrupted, Stopped, check_loss
from .looks import Looks
from .programs import at_once
from .rollback import Rollback
from .saves import Saves
from .session import Session
from .shrinks import Shrinks
from .step import TrainState
from .trial import Trial


class Run:
    """One run in progress: its session and the parts that act on it.

    `teacher` is the model to learn from, with its BatchNorm state. `method` and `policy`, if given,
    replace the configured ones (see `Shrinker`).
    """

    def __init__(
        self,
        config: RunConfig[Any, Any],
        task: Task,
        folder: Path,
        clock: Clock,
        teacher: tuple[Any, eqx.nn.State] | None = None,
        *,
        method: AbstractMethod | None = None,
        policy: AbstractPolicy | None = None,
    ):
        self.session = session = Session(config, task, folder, clock, teacher)
        calibration = calibration_split(config, task.splits["train"])
        automatic = Automatic(config, task) if config.compression.mode == "auto" else None
        self._shrinker = Shrinker(
            config, calibration, session.state.params, method, policy, automatic
        )
        self._trial = Trial(config, folder)
        self._best = Best(folder, config.loop.keep_best)
        self.saves = Saves(session, self._shrinker, self._trial, self._best)
        cutting = Cutting(session, self._shrinker)
        self._ahead = Ahead(session, cutting, calibration)
        self.shrinks = Shrinks(session, self._shrinker, cutting, self._ahead, calibration)
        self._rollback = Rollback(session, self._shrinker, self.saves, self._trial, self._ahead)
        self._looks = None
        if automatic is not None:
            acting = (self._ahead, self.shrinks, self.saves, self._trial, self._rollback)
            self._looks = Looks(session, automatic, cutting, *acting)

    @property
    def config(self) -> RunConfig[Any, Any]:
        """The configuration."""
        return self.session.config

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.session.step

    @property
    def state(self) -> TrainState:
        """The state, with as many states of the layers as they have."""
        return self.session.state

    @property
    def model(self) -> Any:
        """The current model."""
        return self.session.model

    def run(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train to the end and return the summary. Raises `Interrupted` after saving."""
        session, loop, steps = self.session, self.config.loop, self.config.steps
        if self.saves.step is None:
            self.report_spectra()
        self._ahead.resume()
        while session.step < steps:
            first, interrupted = session.step, False
            if self._trial.failed is None:
                interrupted = self.train_to(self._next_stop(), interrupt)
            else:  # an earlier process died while it took a cut back
                self._rollback.take_back()
            moved = session.step > first  # else all that is due here has been done before
            shrunk = moved and self._shrink_if_due()
            if session.step == self._ahead.takeover_step:
                self._ahead.take_over()
            last = session.step == steps
            if not interrupted and (session.step % loop.evaluate_every == 0 or last):
                self._validate()
                self.report_spectra()
            if shrunk or interrupted or last or session.step % loop.checkpoint_every == 0:
                self.saves.save()
            if interrupted and not last:
                session.reporter.confirm()
                session.emit("interrupt")
                raise Interrupted(session.step, session.folder, interrupt.number)
        if "validation" not in session.results:  # resumed at the last step
            self._validate()
        session.evaluate("test")
        session.reporter.confirm()
        best = self._best.result(session)
        if best is not None:
            told = {name: best[name] for name in ("validation", "test")}
            session.emit("best", best_step=best["step"], **told)
        session.emit("end")
        return session.summary() | ({} if best is None else {"best": best})

    def train_to(self, stop: int, interrupt: Interrupt) -> bool:
        """Train up to step `stop`, or to the end of a dispatch at which an interrupt is seen.

        Returns whether one was seen, by any process.
        """
        session = self.session
        first, interrupted, totals = session.step, False, session.engine.zero()
        seconds_before, start = session.clock.read().get("train", 0.0), time.perf_counter()
        alone = session.reporter.late is None  # else errors of the last cut are being measured
        with session.clock.phase("train"):
            while session.step < stop:
                if interrupted := session.placement.any(interrupt.requested):
                    break
                try:
                    totals = self._dispatch(stop, totals, interrupt)
                except Stopped:  # while it waited for the compiler
                    interrupted = True
                    break
            if session.step == first:
                return interrupted
            measured = session.objective.report(totals)  # waits for the device
        took = session.clock.read()["train"] - seconds_before
        alone = alone and not self._ahead.worked_since(start)
        self._report_training(first, measured, took, alone)
        return interrupted

    def report_spectra(self) -> None:
        """Report the Hankel singular values of all layers, and keep their systems if asked to."""
        session = self.session
        session.check_finite()
        with session.clock.phase("spectra"):
            model, norm_state = session.model, session.state.norm_state
            layers = self._shrinker.spectra(model, norm_state).layers
            if self.config.loop.keep_systems and session.placement.is_first:
                reduction = self._shrinker.reduction
                save_systems(session.folder, session.step, model, norm_state, reduction)
        session.emit("spectrum", layers=describe_spectra(layers))

    def close(self) -> None:
        """Wait for the last checkpoint, and for background work."""
        session = self.session
        session.reporter.finish()
        with session.clock.phase("checkpoint"):
            session.reporter.confirm()
            session.checkpoints.close()
            self._trial.close()
            self._best.close()
        self._ahead.cancel()

    def _validate(self) -> None:
        """Measure the validation split, and keep the state if it is the best so far."""
        session = self.session
        session.evaluate("validation")
        measured, measure = session.results["validation"], session.objective.measure
        if self._best.note(session.step, session.sizes, measured, measure):
            self._best.keep(session, self.saves.metadata())

    def _next_stop(self) -> int:
        """The next step at which something happens besides training."""
        loop, step = self.config.loop, self.session.step
        stops = [
            (step // every + 1) * every
            for every in (loop.log_every, loop.evaluate_every, loop.checkpoint_every)
        ]
        looks = () if self._shrinker.automatic is None else self._shrinker.automatic.stops
        later = [s for s in (*self._shrinker.steps, *self._trial.steps, *looks) if s > step]
        takeover = self._ahead.takeover_step
        return min(*stops, self.config.steps, *later, *([] if takeover is None else [takeover]))

    def _dispatch(self, stop: int, totals: Totals, interrupt: Interrupt) -> Totals:
        """Train for some steps, at most up to `stop`; adds to `totals`.

        `Stopped` if a single process is asked to stop while it compiles; the state is then
        unchanged. Several processes all stop at the end of the same dispatch.
        """
        session, rehearsal = self.session, self._ahead.rehearsal_step
        count = min(self.config.loop.steps_per_dispatch, stop - session.step)
        if rehearsal is not None and rehearsal > session.step:
            count = min(count, rehearsal - session.step)
        batches, state = session.feed.batches(session.step), session.held.wide
        wait = interrupt.wait if session.placement.shard.count == 1 else at_once
        session.held.wide, totals = session.engine.train(state, totals, batches, count, wait)
        session.step += count
        if session.step < self.config.steps:
            is_ready = totals.loss.is_ready  # pyright: ignore[reportAttributeAccessIssue]
            session.feed.look_ahead(session.step, is_ready)
        if session.step == rehearsal:
            self._ahead.rehearse()
        return totals

    def _report_training(
        self, first: int, measured: dict[str, float], took: float, alone: bool
    ) -> None:
        """Report the steps from `first` on, which took `took` seconds. `alone`: nothing else was
        computed meanwhile.
        """
        session = self.session
        sizes = session.sizes
        note_phase(session.phases, first, session.step, sizes, session.held.width, took)
        session.emit(
            "train",
            **measured,
            **learning_rates(self.config.optimizer, self.config.steps, session.step - 1),
            steps_per_second=(session.step - first) / took,
            d_state=sizes,
            width=session.held.width,
            alone=alone,
            seconds=session.clock.read()["total"],
        )
        check_loss(measured["loss"], first, session.step, session.checkpoints.latest())

    def _shrink_if_due(self) -> bool:
        """Judge the last cut and make the next one if it is due. Returns whether one was made."""
        step = self.session.step
        if self._looks is not None:
            due = self._looks.look_if_due()
        else:
            due = step in self._shrinker.steps
            if step in self._trial.steps:
                due = self._rollback.judge(save=due) and due
            if due:
                self.shrinks.shrink()
        if due:
            self._ahead.compile_own_size()
        return due
