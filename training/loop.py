"""A run from its configuration to its report: train, evaluate, shrink, save."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from compress import Plan, compress
from data.pipeline import eval_batches
from data.task import Split, Task

from .auxiliary import make_auxiliary
from .checkpoint import Checkpoints, resized
from .clock import Clock
from .config import RunConfig
from .describe import describe_cut, summarize
from .feed import Feed
from .interrupt import Interrupt
from .metrics import Sink
from .network import build_model, layer_sizes, layers_of, parameter_count
from .objective import OBJECTIVES, Totals
from .optimizer import make_optimizer
from .placement import Placement
from .programs import Programs
from .reduction import calibration_split
from .rehearsal import Rehearsal
from .schedule import learning_rate_schedule, rehearsal_steps
from .shrinker import Shrinker
from .step import TrainState, make_eval_step, make_train_steps, run_batch
from .systems import save_systems
from .trial import Trial


class Interrupted(Exception):
    """The run was asked to stop; everything up to `step` is saved in `folder`."""

    def __init__(self, step: int, folder: Path):
        super().__init__(f"stopped at step {step}")
        self.step, self.folder = step, folder


class Diverged(ArithmeticError):
    """The loss is no longer a number; the last checkpoint is from before."""


class Run:
    """One run in progress: its state on the device, its schedule and where it reports to.

    All that the run has learned is in `state`; the rest can be made again from the configuration.
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
        self.state = TrainState(params, norm_state, opt_state, jnp.zeros((), jnp.int32))
        self.step = 0
        self.initial_sizes = layer_sizes(model)
        self.parameters_before = parameter_count(params)
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
        size = config.compression.calibration
        self._calibration = calibration_split(task.splits["train"], size, config.seed)
        self._shrinker = Shrinker(config, self._calibration, self.initial_sizes)
        self._trial = Trial(config, folder / "before_cut")
        self._rehearsals = rehearsal_steps(config.compression, config.steps)
        self._rehearsal: Rehearsal | None = None
        self._rehearsed: list[int] | None = None

    @property
    def model(self) -> Any:
        """The model as it is now."""
        return eqx.combine(self.state.params, self.static)

    # Reporting

    def emit(self, event: str, **fields: Any) -> None:
        """Hand an event of the present step to every sink."""
        for sink in self.sinks:
            sink.write({"event": event, "step": self.step, **fields})

    # Checkpoints

    def save(self) -> None:
        """Save everything that a resumed run needs, unless this step is saved already."""
        if self.step == self._saved:
            return
        self._saved = self.step
        self._save_to(self._checkpoints)
        self.emit("checkpoint")

    def _save_to(self, checkpoints: Checkpoints) -> None:
        with self.clock.phase("checkpoint"):
            metadata = {
                "step": self.step,
                "d_state": layer_sizes(self.model),
                "rehearsed": self._rehearsed_ranks(),
                "needed": self._shrinker.memory,
                "trial": self._trial.memory,
                "seconds": self.clock.read(),
                "phases": self.phases,
            }
            checkpoints.save(self.step, self.state, metadata)

    def restore(self) -> bool:
        """Go back to the latest checkpoint; False if there is none."""
        step = self._checkpoints.latest()
        if step is None:
            return False
        metadata = self._restore_from(self._checkpoints, step)
        self._saved = step
        seconds = {name: s for name, s in metadata["seconds"].items() if name != "total"}
        for name, value in self.clock.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        self.clock.seconds = seconds
        return True

    def _restore_from(self, checkpoints: Checkpoints, step: int) -> dict[str, Any]:
        """Take over a saved state, and all that goes with it but the clock; its metadata."""
        metadata = checkpoints.metadata(step)
        model = resized(self.model, metadata["d_state"])
        params = eqx.filter(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))
        like = self.state._replace(
            params=params,
            opt_state=eqx.filter_eval_shape(
                self.optimizer.init, eqx.filter(params, _is_inexact_struct)
            ),
        )
        self.state = checkpoints.arrays(step, like)
        self.step = step
        self.phases = metadata["phases"]
        self._rehearsed = metadata["rehearsed"]
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
        return min(*stops, self.config.steps, *later)

    def train_to(self, stop: int, interrupt: Interrupt) -> bool:
        """Train up to step `stop`, or to the end of a dispatch at which an interrupt is seen.

        Returns whether one was seen, by any process.
        """
        interrupted = False
        dispatch = self.config.loop.steps_per_dispatch
        first, totals = self.step, Totals.zero()
        seconds_before = self.clock.read().get("train", 0.0)
        with self.clock.phase("train"):
            while self.step < stop:
                if interrupted := self.placement.any(interrupt.requested):
                    break
                later = [s - self.step for s in self._rehearsals if s > self.step]
                count = min(dispatch, stop - self.step, *later)
                batches = self._feed.batches(self.step)
                args = self.placement.share(
                    (self.state, totals, batches, np.int32(count), self.key, self._arrays)
                )
                done = self._program("train step", self._train_steps, *args)(*args)
                self.state, totals = self.placement.own(done)
                self.step += count
                if self.step < self.config.steps:
                    self._feed.look_ahead(self.step, totals.loss.is_ready)
                if self.step in self._rehearsals and not self._trial.stopped:
                    self.rehearse()
            if self.step == first:
                return interrupted
            measured = self.objective.report(totals)  # waits for the device
        seconds = self.clock.read()
        self._note_phase(first, seconds["train"] - seconds_before)
        schedules = (
            learning_rate_schedule(self.config.optimizer, self.config.steps, factor)
            for factor in (1.0, self.config.optimizer.ssm_factor)
        )
        rate, rate_ssm = (np.asarray(schedule(self.step - 1)).item() for schedule in schedules)
        self.emit(
            "train",
            **measured,
            learning_rate=rate,
            learning_rate_ssm=rate_ssm,
            steps_per_second=(self.step - first) / (seconds["train"] - seconds_before),
            d_state=layer_sizes(self.model),
            seconds=seconds["total"],
        )
        loss = measured["loss"]
        if not math.isfinite(loss):
            latest = self._checkpoints.latest()
            raise Diverged(
                f"the loss is {loss} between steps {first} and {self.step}; "
                f"the last checkpoint is from step {latest}: lower optimizer.learning_rate"
            )
        return interrupted

    def _note_phase(self, first: int, seconds: float) -> None:
        """Add the steps since `first` to the present phase: the steps between two shrinks."""
        sizes = layer_sizes(self.model)
        if not self.phases or self.phases[-1]["d_state"] != sizes:
            self.phases.append({"from_step": first, "d_state": sizes, "seconds": 0.0})
        phase = self.phases[-1]
        phase["to_step"] = self.step
        phase["seconds"] += seconds
        phase["steps_per_second"] = (self.step - phase["from_step"]) / phase["seconds"]

    # Evaluation

    def measure(self, split: Split, limit: int | None = None) -> Totals:
        """Sums over a split, or over its first `limit` batches; does not wait for them."""
        totals = Totals.zero()
        for k, batch in enumerate(self._eval_batches(split)):
            if limit is not None and k >= limit:
                break
            args = self.placement.share((self.state.params, self.state.norm_state, totals, *batch))
            totals = self.placement.own(self._program("eval step", self._eval_step, *args)(*args))
        return totals

    def _eval_batches(self, split: Split) -> Iterator[Any]:
        batches = eval_batches(split, self._evaluation_batch(), self.placement.shard)
        return map(self.placement.split, batches)

    def _evaluation_batch(self) -> int:
        """One size for all splits, so that one program serves them."""
        sizes = (len(self.task.splits[name]) for name in ("validation", "test"))
        size, devices = min(self.config.loop.evaluation_batch, *sizes), self.placement.devices
        return max(size // devices, 1) * devices

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
        with self.clock.phase("spectra"):
            model = self.model
            layers = self._shrinker.spectra(model, self.state.norm_state).layers
            if self.config.loop.keep_systems and self.placement.is_first:
                save_systems(self.folder / "systems" / f"{self.step}.npz", model)
        self.emit(
            "spectrum",
            layers=[
                {"path": layer.path, "d_state": layer.rank_before, "sigma": layer.sigma}
                for layer in layers
            ],
        )

    def rehearse(self) -> None:
        """Try out the next shrink in the background, with the state as it is now."""
        shrink = next(s for s in self._shrinker.steps if s > self.step)
        ranks, batches = self._rehearsed, self._feed.batches(self.step)
        snapshot = jax.tree.map(lambda x: jax.device_put(np.array(x)), self.state)

        def plan_ahead() -> tuple[list[int] | None, Plan]:
            planned = self._plan_shrink(snapshot, shrink, ranks)
            if self.config.compression.mode != "tolerance":
                return [layer.rank_after for layer in planned.layers], planned
            needed = self._shrinker.needed(planned)
            return (needed if ranks is None else ranks), planned

        self._rehearsal = Rehearsal(
            plan_ahead, lambda planned: self._prepare_for(snapshot, batches, planned)
        )

    def _prepare_for(
        self, state: TrainState, batches: Any, planned: Plan
    ) -> Iterator[list[int] | tuple[str, float | None]]:
        """Make all that this shrink of `state` needs, and the steps on `batches` after it.

        The second half of a `Rehearsal`: touches nothing of the run's but its programs.
        """
        model = eqx.combine(state.params, self.static)
        after, opt_state = compress(
            model, state.opt_state, plan=planned, moments=self.config.compression.moments
        )
        yield layer_sizes(after)
        smaller = state._replace(params=eqx.filter(after, eqx.is_array), opt_state=opt_state)
        share = self.placement.share
        args = share((smaller, Totals.zero(), batches, np.int32(1), self.key, self._arrays))
        yield "train step", self._programs.make("train step", self._train_steps, args)[1]
        batch = next(self._eval_batches(self._calibration))
        for each in (state, smaller):
            args = share((each.params, each.norm_state, Totals.zero(), *batch))
            yield "eval step", self._programs.make("eval step", self._eval_step, args)[1]
        self._shrinker.reduction.certificates(planned, layers_of(after))

    def _rehearsed_ranks(self) -> list[int] | None:
        """The ranks that the rehearsal of the next shrink has found, if there was one."""
        return self._rehearsed if self._rehearsal is None else self._rehearsal.ranks()

    def _plan_shrink(self, state: TrainState, step: int, rehearsed: list[int] | None) -> Plan:
        """What is cut at `step`. Raises `Diverged` for a model without HSVs."""
        model = eqx.combine(state.params, self.static)
        try:
            return self._shrinker.plan(model, state.norm_state, step, rehearsed)
        except ValueError as error:
            raise Diverged(f"cannot shrink at step {step}: {error}") from error

    def shrink(self) -> None:
        """Cut every layer as the configuration says; report what it cost and what it changed."""
        compression = self.config.compression
        started = time.perf_counter()
        with self.clock.phase("shrink"):
            rehearsed = self._rehearsed_ranks()
            outcome = None if self._rehearsal is None else self._rehearsal.finish()
            self._rehearsal = self._rehearsed = None
            waited = time.perf_counter() - started
            for what, seconds in outcome.compiled if outcome else ():
                self.emit("compile", seconds=seconds, what=what, background=True)
            loss_before = self.measure(self._calibration)
            start = time.perf_counter()
            before = self.state
            planned = self._plan_shrink(before, self.step, rehearsed)
            self._shrinker.remember(planned)
            plan_seconds = time.perf_counter() - start
            start = time.perf_counter()
            after, opt_state = compress(
                self.model, before.opt_state, plan=planned, moments=compression.moments
            )
            params = eqx.filter(after, eqx.is_array)
            self.state = self.placement.agree(before._replace(params=params, opt_state=opt_state))
            compress_seconds = time.perf_counter() - start
            loss_after = self.measure(self._calibration)
            sizes = layer_sizes(after)
            certificates = self._shrinker.reduction.certificates(planned, layers_of(after))
            loss_before, loss_after = loss_before.means()[0], loss_after.means()[0]
            rejected = (
                compression.guard is not None
                and loss_after - loss_before > compression.guard
                and not self._shrinker.must_cut(self.step)
            )
            if rejected:
                self.state = before
        if outcome:
            self.emit(
                "rehearsal",
                ranks=rehearsed,
                agreed=outcome.d_state == sizes,
                seconds=outcome.seconds,
                waited=waited,
                error=outcome.error,
            )
        self.emit(
            "shrink",
            layers=describe_cut(planned, layer_sizes(self.model), certificates),
            loss_before=loss_before,
            loss_after=loss_after,
            rejected=sizes if rejected else None,
            plan_seconds=plan_seconds,
            compress_seconds=compress_seconds,
            duration=time.perf_counter() - started,
        )

    def _try_on(self, shrinking: bool) -> bool:
        """In mode `pragmatic`: judge the cut before; take it back, or note how the model does.

        Returns whether another cut may be tried.
        """
        if self._trial.stopped:
            return False
        with self.clock.phase("evaluate"):
            measured = self.objective.report(self.measure(self.task.splits["validation"]))
        measure = self.objective.measure
        if self._trial.passes(measured[measure.key], measure):
            self._trial.note(measured[measure.key])
            if shrinking:
                self._save_to(self._trial.checkpoints)
            return True
        failed = self.step, layer_sizes(self.model)
        if self._rehearsal is not None:
            self._rehearsal.finish()
        self._restore_from(self._trial.checkpoints, self._trial.saved_step)
        self._rehearsal = self._rehearsed = None
        self._trial.stop()
        self._checkpoints.forget_from(self.step)
        for sink in self.sinks:
            sink.rewind(self.step)
        self.emit(
            "rollback",
            from_step=failed[0],
            tried=failed[1],
            d_state=layer_sizes(self.model),
            measured=measured[measure.key],
            needed=self._trial.memory["best"],
        )
        self._saved = None
        self.save()
        return False

    # The whole

    def run(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train to the end and return the summary. Raises `Interrupted` after saving."""
        loop = self.config.loop
        if self._saved is None:
            self.report_spectra()
        elif self._rehearsed is not None:
            self.rehearse()
        while self.step < self.config.steps:
            first = self.step
            interrupted = self.train_to(self._next_stop(), interrupt)
            moved = self.step > first  # else all that is due here has been done before
            shrinking = moved and self.step in self._shrinker.steps
            if moved and self.step in self._trial.steps:
                shrinking = self._try_on(shrinking) and shrinking
            if shrinking:
                self.shrink()
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
        return summarize(self)

    def close(self) -> None:
        """Wait for the last checkpoint, and for a rehearsal to come to an end."""
        if self._rehearsal is not None:
            self._rehearsal.cancel()
        with self.clock.phase("checkpoint"):
            self._checkpoints.close()
            self._trial.close()


def _is_inexact_struct(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jnp.inexact)
