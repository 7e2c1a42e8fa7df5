"""A run from its configuration to its report: train, evaluate, shrink, save."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from compress import Plan, compress
from data.pipeline import eval_batches
from data.task import Split, Task

from ..model.auxiliary import make_auxiliary
from ..model.forward import run_batch
from ..model.network import build_model, layer_sizes
from ..model.objective import OBJECTIVES, Totals
from ..model.optimizer import make_optimizer
from ..reporting.events import Sink
from ..settings.config import RunConfig
from ..settings.schedule import grace, last_shrink, learning_rates, rehearsal_step, takeover_step
from ..shrinking.describe import describe_spectra
from ..shrinking.reduction import calibration_split
from ..shrinking.shrinker import Shrinker
from ..shrinking.systems import save_systems
from .background import Background, Outcome
from .checkpoint import Checkpoints, shapes_of, shapes_of_moments
from .clock import Clock
from .describe import Beginning, note_phase, summarize
from .feed import Feed
from .held import HeldState
from .interrupt import Diverged, Interrupt, Interrupted, check_finite, check_loss
from .placement import Placement
from .programs import Programs
from .shrink_report import ShrinkReport
from .step import TrainState, make_eval_step, make_train_steps
from .trial import Trial


class Run:
    """One run in progress: its state on the device, its schedule and where it reports to.

    All that the run has learned is in `state`; the rest can be made again from the configuration.
    After a shrink it is held as the programs of the larger state take it (see `Padding`), for some
    steps that follow from the schedule, in which those of the smaller one are compiled.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        folder: Path,
        clock: Clock,
        teacher: tuple[Any, eqx.nn.State] | None = None,
    ):
        self.config, self.task, self.folder, self.clock = config, task, folder, clock
        self.sinks: list[Sink] = []
        self.placement = Placement()
        self.key = jax.random.fold_in(jax.random.key(config.seed), 1)
        self.optimizer = make_optimizer(config.optimizer, config.steps)
        model, norm_state = build_model(config, task)
        params, self.static = eqx.partition(model, eqx.is_array)
        opt_state = self.optimizer.init(eqx.filter(params, eqx.is_inexact_array))
        self.held = HeldState(TrainState(params, norm_state, opt_state, jnp.zeros((), jnp.int32)))
        self.step = 0
        self.beginning = Beginning.of(model)
        self.phases: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, float]] = {}
        self.objective = OBJECTIVES[task.kind]
        auxiliary = make_auxiliary(config, teacher, run_batch)
        self._arrays = auxiliary.arrays
        self._train_steps = make_train_steps(
            self.static, self.optimizer, self.objective, auxiliary.join, self.placement.outputs
        )
        self._eval_step = make_eval_step(self.static, self.objective, self.placement.outputs)
        self._programs = Programs()
        self._feed = Feed(
            task.splits["train"],
            config.batch_size,
            config.seed,
            config.loop.steps_per_dispatch,
            clock,
            self.placement,
        )
        self._checkpoints = Checkpoints(folder / "checkpoints", config.loop.keep_checkpoints)
        self._saved: int | None = None
        self._calibration = calibration_split(config, task.splits["train"])
        self._shrinker = Shrinker(config, self._calibration, params)
        self._trial = Trial(config, folder)
        self._rehearsal_step = rehearsal_step(config.compression, config.steps)
        self._rehearsal: Background | None = None
        self._compiling: Background | None = None
        self._untold: ShrinkReport | None = None

    @property
    def state(self) -> TrainState:
        """The state, with as many states of the layers as they have."""
        return self.held.own

    @property
    def model(self) -> Any:
        """The model as it is now."""
        return eqx.combine(self.state.params, self.static)

    # Reporting

    def emit(self, event: str, **fields: Any) -> None:
        """Hand an event of the present step to every sink, after what is still to be told."""
        self._tell_shrink()
        self._write(event, self.step, fields)

    def _write(self, event: str, step: int, fields: dict[str, Any]) -> None:
        for sink in self.sinks:
            sink.write({"event": event, "step": step, **fields})

    def _tell_shrink(self) -> None:
        """Report the last shrink and save the state after it, where that is still to be done."""
        shrink, self._untold = self._untold, None
        if shrink is not None:
            shrink.tell(self._write, self._checkpoints, self.clock)

    # Checkpoints

    def save(self) -> None:
        """Save everything that a resumed run needs, unless this step is saved already."""
        if self.step == self._saved:
            return
        self._saved = self.step
        if self._untold is not None:
            self._untold.saved = self.state, self._metadata()
            return
        check_finite(self.state.params, self.step, self._checkpoints.latest())
        with self.clock.phase("checkpoint"):
            self._checkpoints.save(self.step, self.state, self._metadata())
        self.emit("checkpoint")

    def _metadata(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "d_state": layer_sizes(self.model),
            "width": self.held.width,
            "needed": self._shrinker.memory,
            "trial": self._trial.memory,
            "seconds": self.clock.read(),
            "phases": [dict(phase) for phase in self.phases],
        }

    def restore(self) -> bool:
        """Go back to the latest checkpoint, or to before a failed cut; False if there is none."""
        checkpoints = self._checkpoints if self._trial.failed is None else self._trial.checkpoints
        step = checkpoints.latest()
        if step is None:
            return False
        metadata = self._restore_from(checkpoints, step)
        self._saved = step
        self.clock.add(metadata["seconds"])
        return True

    def _restore_from(self, checkpoints: Checkpoints, step: int) -> dict[str, Any]:
        """Take over a saved state, and all that goes with it but the clock; its metadata."""
        metadata = checkpoints.metadata(step)
        sizes = metadata["d_state"]
        width = metadata.get("width", sizes)
        like = self.state._replace(params=shapes_of(self.model, sizes))
        like = like._replace(opt_state=shapes_of_moments(self.optimizer, like.params))
        larger = None if width == sizes else shapes_of(self.model, width)
        self.held.hold(checkpoints.arrays(step, like), larger)
        self.step = step
        self.phases = metadata["phases"]
        self._shrinker.recall(metadata["needed"])
        self._trial.recall(metadata["trial"])
        return metadata

    # Training

    def _program(self, what: str, function: Any, *args: Any) -> Any:
        """`function` compiled for the shapes of `args`: once for each, and timed."""
        program = self._programs.find(what, args)
        if program is None:
            with self.clock.phase("compile"):
                program, seconds = self._programs.make(what, function, args)
            if seconds is not None:
                self.emit("compile", seconds=seconds, what=what, background=False)
        return program

    def _next_stop(self) -> int:
        """The next step at which something happens besides training."""
        loop = self.config.loop
        stops = [
            (self.step // every + 1) * every
            for every in (loop.log_every, loop.evaluate_every, loop.checkpoint_every)
        ]
        later = [s for s in (*self._shrinker.steps, *self._trial.steps) if s > self.step]
        takeover = self._takeover_step()
        return min(*stops, self.config.steps, *later, *([] if takeover is None else [takeover]))

    def train_to(self, stop: int, interrupt: Interrupt) -> bool:
        """Train up to step `stop`, or to the end of a dispatch at which an interrupt is seen.

        Returns whether one was seen, by any process.
        """
        interrupted = False
        first, totals = self.step, Totals.zero()
        seconds_before = self.clock.read().get("train", 0.0)
        with self.clock.phase("train"):
            while self.step < stop:
                if interrupted := self.placement.any(interrupt.requested):
                    break
                count = min(self.config.loop.steps_per_dispatch, stop - self.step)
                if self._rehearsal_step is not None and self._rehearsal_step > self.step:
                    count = min(count, self._rehearsal_step - self.step)
                batches, state = self._feed.batches(self.step), self.held.wide
                args = (state, totals, batches, np.int32(count), self.key, self._arrays)
                args = self.placement.share(args)
                done = self._program("train step", self._train_steps, *args)(*args)
                self.held.wide, totals = self.placement.own(done)
                self.step += count
                if self.step < self.config.steps:
                    self._feed.look_ahead(self.step, totals.loss.is_ready)
                if self.step == self._rehearsal_step:
                    self.rehearse()
            if self.step == first:
                return interrupted
            measured = self.objective.report(totals)  # waits for the device
        seconds = self.clock.read()
        sizes = layer_sizes(self.model)
        took = seconds["train"] - seconds_before
        note_phase(self.phases, first, self.step, sizes, self.held.width, took)
        self.emit(
            "train",
            **measured,
            **learning_rates(self.config.optimizer, self.config.steps, self.step - 1),
            steps_per_second=(self.step - first) / took,
            d_state=sizes,
            seconds=seconds["total"],
        )
        check_loss(measured["loss"], first, self.step, self._checkpoints.latest())
        return interrupted

    # Evaluation

    def measure(self, split: Split, limit: int | None = None) -> Totals:
        """Sums over a split, or over its first `limit` batches; does not wait for them."""
        totals = Totals.zero()
        for batch in islice(self._eval_batches(split), limit):
            state = self.held.wide
            args = self.placement.share((state.params, state.norm_state, totals, *batch))
            totals = self.placement.own(self._program("eval step", self._eval_step, *args)(*args))
        return totals

    def _eval_batches(self, split: Split) -> Iterator[Any]:
        """Of one size for all splits, so that one program serves them."""
        sizes = (len(self.task.splits[name]) for name in ("validation", "test"))
        size = self.placement.batch_size(min(self.config.loop.evaluation_batch, *sizes))
        return map(self.placement.split, eval_batches(split, size, self.placement.shard))

    def evaluate(self, name: str) -> None:
        """Measure the loss and what else counts on the split called `name`, and report it."""
        start = time.perf_counter()
        with self.clock.phase("evaluate"):
            measured = self.objective.report(self.measure(self.task.splits[name]))
        self.emit(
            "eval",
            split=name,
            **measured,
            seconds=self.clock.read()["total"],
            duration=time.perf_counter() - start,
        )
        self.results[name] = measured

    # Shrinking

    def report_spectra(self) -> None:
        check_finite(self.state.params, self.step, self._checkpoints.latest())
        with self.clock.phase("spectra"):
            model, norm_state = self.model, self.state.norm_state
            layers = self._shrinker.spectra(model, norm_state).layers
            if self.config.loop.keep_systems and self.placement.is_first:
                save_systems(self.folder, self.step, model, norm_state, self._shrinker.reduction)
        self.emit("spectrum", layers=describe_spectra(layers))

    def rehearse(self) -> None:
        """Try out the first shrink in the background, with the state as it is now.

        So that what it compiles is there when it comes; its sizes may yet be others.
        """
        snapshot = jax.tree.map(lambda x: jax.device_put(np.array(x)), self.held.wide)
        self._rehearsal = Background(self._play(snapshot, self._shrinker.steps[0]))

    def _play(self, state: TrainState, shrink: int) -> Iterator[tuple[str, float | None]]:
        """Goes through the shrink of `state`, and touches nothing of the run's but its programs."""
        yield self._make_eval_step(state)
        planned = self._plan_shrink(state, shrink)
        yield "plan", None
        model = eqx.combine(state.params, self.static)
        after, _ = compress(
            model, state.opt_state, plan=planned, moments=self.config.compression.moments
        )
        self._shrinker.reduction.describe(planned, after, layer_sizes(after))

    def _takeover_step(self) -> int | None:
        """When programs of the layers' own size take over, None if they do not or have done so."""
        if not self.held.is_padded:
            return None
        return takeover_step(self.config, self.step, layer_sizes(self.model))

    def _compile_ahead(self) -> None:
        """Compile the programs of the layers' own size in the background, once they are to last."""
        if self._takeover_step() is None or self._compiling is not None:
            return
        if last_shrink(self.config, self.step, layer_sizes(self.model)) <= self.step:
            work = self._own_programs(self.state, self._feed.batches(self.step))
            self._compiling = Background(work)

    def _own_programs(self, state: TrainState, batches: Any) -> Iterator[tuple[str, float | None]]:
        args = (state, Totals.zero(), batches, np.int32(1), self.key, self._arrays)
        args = self.placement.share(args)
        yield "train step", self._programs.make("train step", self._train_steps, args)[1]
        yield self._make_eval_step(state)

    def _make_eval_step(self, state: TrainState) -> tuple[str, float | None]:
        batch = next(self._eval_batches(self._calibration))
        args = self.placement.share((state.params, state.norm_state, Totals.zero(), *batch))
        return "eval step", self._programs.make("eval step", self._eval_step, args)[1]

    def _take_over(self) -> None:
        """Go on in programs of the layers' own size."""
        start = time.perf_counter()
        with self.clock.phase("compile"):
            outcome, self._compiling = self._finished(self._compiling), None
        self.held.hold(self.state)
        self.emit(
            "takeover",
            d_state=self.held.width,
            seconds=outcome.seconds if outcome else 0.0,
            waited=time.perf_counter() - start,
            error=outcome.error if outcome else None,
        )

    def _finished(self, work: Background | None) -> Outcome | None:
        """Waits for what is done in the background; tells what it compiled."""
        outcome = None if work is None else work.finish()
        for what, seconds in outcome.compiled if outcome else ():
            self.emit("compile", seconds=seconds, what=what, background=True)
        return outcome

    def _plan_shrink(self, state: TrainState, step: int) -> Plan:
        """What is cut at `step`. Raises `Diverged` for a model without HSVs."""
        model = eqx.combine(state.params, self.static)
        try:
            return self._shrinker.plan(model, state.norm_state, step)
        except ValueError as error:
            raise Diverged(f"cannot shrink at step {step}: {error}") from error

    def shrink(self) -> None:
        """Cut every layer as the configuration says; report what it cost and what it changed."""
        compression = self.config.compression
        started = time.perf_counter()
        with self.clock.phase("shrink"):
            outcome, self._rehearsal = self._finished(self._rehearsal), None
            waited = time.perf_counter() - started
            loss_before = self.measure(self._calibration)
            start = time.perf_counter()
            before, larger = self.state, self.held.wide.params
            planned = self._plan_shrink(before, self.step)
            self._shrinker.remember(planned)
            plan_seconds = time.perf_counter() - start
            start = time.perf_counter()
            after, opt_state = compress(
                self.model, before.opt_state, plan=planned, moments=compression.moments
            )
            params = eqx.filter(after, eqx.is_array)
            state = self.placement.agree(before._replace(params=params, opt_state=opt_state))
            sizes = layer_sizes(after)
            padded = sizes != self.held.width and grace(self.config) > 0
            kept, self.held = self.held, HeldState(state, larger if padded else None)
            compress_seconds = time.perf_counter() - start
            loss_after = self.measure(self._calibration)
            loss_before, loss_after = loss_before.means()[0], loss_after.means()[0]
            rejected = (
                compression.guard is not None
                and not loss_after - loss_before <= compression.guard
                and not self._shrinker.must_cut(self.step)
            )
            if rejected:
                self.held = kept
        if outcome:
            self.emit("rehearsal", seconds=outcome.seconds, waited=waited, error=outcome.error)
        self._untold = ShrinkReport(
            self.step,
            partial(self._shrinker.reduction.describe, planned, after, layer_sizes(self.model)),
            loss_before=loss_before,
            loss_after=loss_after,
            rejected=sizes if rejected else None,
            plan_seconds=plan_seconds,
            compress_seconds=compress_seconds,
            duration=time.perf_counter() - started,
        )
        if not self.held.is_padded:  # the next step takes the arrays of the layers
            self._tell_shrink()

    def _try_on(self, shrinking: bool) -> bool:
        """In mode `pragmatic`: judge the cut before; take it back, or note how the model does.

        Returns whether another cut may be tried.
        """
        if self._trial.stopped:
            return False
        with self.clock.phase("evaluate"):
            measured = self.objective.report(self.measure(self.task.splits["validation"]))
        measure, sizes = self.objective.measure, layer_sizes(self.model)
        if self._trial.passes(measured[measure.key], measure, sizes):
            self._trial.note(measured[measure.key], sizes)
            if shrinking:
                with self.clock.phase("checkpoint"):
                    self._trial.save(self.step, self.state, self._metadata())
            return True
        failed = {
            "from_step": self.step,
            "tried": sizes,
            "measured": measured[measure.key],
            "needed": self._trial.memory["best"],
        }
        self._trial.begin_taking_back(failed, self.placement.is_first)
        self._take_back()
        return False

    def _take_back(self) -> None:
        """Go back, for good, to before the cut that has failed."""
        self._leave_background()
        self._restore_from(self._trial.checkpoints, self._trial.saved_step)
        self._trial.stop()
        self._checkpoints.forget_from(self.step)
        for sink in self.sinks:
            sink.rewind(self.step)
        self.emit("rollback", **(self._trial.failed or {}), d_state=layer_sizes(self.model))
        self._saved = None
        self.save()
        self._checkpoints.wait()
        self._trial.end_taking_back(self.placement.is_first)
        self._compile_ahead()

    # The whole

    def run(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train to the end and return the summary. Raises `Interrupted` after saving."""
        loop = self.config.loop
        if self._saved is None:
            self.report_spectra()
        start = self._rehearsal_step
        if start is not None and start <= self.step < self._shrinker.steps[0]:
            self.rehearse()
        self._compile_ahead()
        while self.step < self.config.steps:
            first, interrupted = self.step, False
            if self._trial.failed is None:
                interrupted = self.train_to(self._next_stop(), interrupt)
            else:  # an earlier process died while it took a cut back
                self._take_back()
            moved = self.step > first  # else all that is due here has been done before
            shrinking = moved and self.step in self._shrinker.steps
            if moved and self.step in self._trial.steps:
                shrinking = self._try_on(shrinking) and shrinking
            if shrinking:
                self.shrink()
                self._compile_ahead()
            if self.step == self._takeover_step():
                self._take_over()
            last = self.step == self.config.steps
            if not interrupted and (self.step % loop.evaluate_every == 0 or last):
                self.evaluate("validation")
                self.report_spectra()
            if shrinking or interrupted or last or self.step % loop.checkpoint_every == 0:
                self.save()
            if interrupted and not last:
                self.emit("interrupt")
                raise Interrupted(self.step, self.folder)
        if "validation" not in self.results:  # resumed at the last step
            self.evaluate("validation")
        self.evaluate("test")
        self.emit("end")
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """What summary.json holds."""
        return summarize(
            self.config,
            self.task,
            self.beginning,
            self.model,
            results=self.results,
            phases=self.phases,
            seconds=self.clock.read(),
        )

    def close(self) -> None:
        """Wait for the last checkpoint, and for what is done in the background."""
        self._leave_background()
        self._tell_shrink()
        with self.clock.phase("checkpoint"):
            self._checkpoints.close()
            self._trial.close()

    def _leave_background(self) -> None:
        for work in (self._rehearsal, self._compiling):
            if work is not None:
                work.cancel()
        self._rehearsal = self._compiling = None
