"""A run from its configuration to its report: train, evaluate, shrink, save."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from compress import Plan, compress, rank
from data.pipeline import eval_batches
from data.task import Split, Task

from .checkpoint import Checkpoints, resized
from .clock import Clock
from .config import RunConfig
from .feed import Feed
from .interrupt import Interrupt
from .metrics import Sink, write_atomically
from .network import build_model, layer_paths, layer_sizes, layers_of, parameter_count
from .objective import OBJECTIVES, Totals
from .optimizer import make_optimizer
from .programs import Programs
from .reduction import Reduction, calibration_split
from .rehearsal import Rehearsal, settle
from .schedule import learning_rate_schedule, rank_at, rehearsal_steps, shrink_steps
from .step import TrainState, make_eval_step, make_train_steps


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

    def __init__(self, config: RunConfig, task: Task, folder: Path, clock: Clock):
        self.config, self.task, self.folder, self.clock = config, task, folder, clock
        self.sinks: list[Sink] = []
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
        self._train_steps = make_train_steps(self.static, self.optimizer, self.objective)
        self._eval_step = make_eval_step(self.static, self.objective)
        self._programs = Programs()
        self._feed = Feed(
            task.splits["train"],
            config.batch_size,
            config.seed,
            config.loop.steps_per_dispatch,
            clock,
        )
        self._checkpoints = Checkpoints(folder / "checkpoints", config.loop.keep_checkpoints)
        self._saved: int | None = None
        self._shrinks = shrink_steps(config.compression, config.steps)
        size = config.compression.calibration
        self._calibration = calibration_split(task.splits["train"], size, config.seed)
        self._reduction = Reduction(config.compression, self._calibration)
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

    def describe(self) -> dict[str, Any]:
        """What the "start" event says."""
        return {
            "task": self.task.name,
            "model": self.config.model,
            "seed": self.config.seed,
            "total_steps": self.config.steps,
            "parameters": self.parameters_before,
            "length": self.task.length,
            "kind": self.task.kind,
            "outputs": self.task.outputs,
            "baselines": dict(self.task.baselines),
            "layers": [
                {"path": path, "d_state": size}
                for path, size in zip(layer_paths(self.model), self.initial_sizes, strict=True)
            ],
        }

    # Checkpoints

    def save(self) -> None:
        """Save everything that a resumed run needs, unless this step is saved already."""
        if self.step == self._saved:
            return
        self._saved = self.step
        with self.clock.phase("checkpoint"):
            metadata = {
                "step": self.step,
                "d_state": layer_sizes(self.model),
                "rehearsed": self._rehearsed_ranks(),
                "seconds": self.clock.read(),
                "phases": self.phases,
            }
            self._checkpoints.save(self.step, self.state, metadata)
        self.emit("checkpoint")

    def restore(self) -> bool:
        """Go back to the latest checkpoint; False if there is none."""
        step = self._checkpoints.latest()
        if step is None:
            return False
        metadata = self._checkpoints.metadata(step)
        model = resized(self.model, metadata["d_state"])
        params = eqx.filter(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))
        like = self.state._replace(
            params=params,
            opt_state=eqx.filter_eval_shape(
                self.optimizer.init, eqx.filter(params, _is_inexact_struct)
            ),
        )
        self.state = self._checkpoints.arrays(step, like)
        self.step = self._saved = step
        self.phases = metadata["phases"]
        self._rehearsed = metadata["rehearsed"]
        seconds = {name: s for name, s in metadata["seconds"].items() if name != "total"}
        for name, value in self.clock.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        self.clock.seconds = seconds
        return True

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
        later = [s for s in self._shrinks if s > self.step]
        return min(*stops, self.config.steps, *later)

    def train_to(self, stop: int, interrupt: Interrupt) -> None:
        """Train up to step `stop`, or to the end of a dispatch at which an interrupt is seen."""
        dispatch = self.config.loop.steps_per_dispatch
        first, totals = self.step, Totals.zero()
        seconds_before = self.clock.read().get("train", 0.0)
        with self.clock.phase("train"):
            while self.step < stop and not interrupt.requested:
                later = [s - self.step for s in self._rehearsals if s > self.step]
                count = min(dispatch, stop - self.step, *later)
                batches = self._feed.batches(self.step)
                args = (self.state, totals, batches, np.int32(count), self.key)
                self.state, totals = self._program("train step", self._train_steps, *args)(*args)
                self.step += count
                if self.step < self.config.steps:
                    self._feed.look_ahead(self.step, totals.loss.is_ready)
                if self.step in self._rehearsals:
                    self.rehearse()
            if self.step == first:
                return
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
        for k, batch in enumerate(eval_batches(split, self._evaluation_batch())):
            if limit is not None and k >= limit:
                break
            args = (self.state.params, self.state.norm_state, totals, *batch)
            totals = self._program("eval step", self._eval_step, *args)(*args)
        return totals

    def _evaluation_batch(self) -> int:
        """One size for all splits, so that one program serves them."""
        sizes = (len(self.task.splits[name]) for name in ("validation", "test"))
        return min(self.config.loop.evaluation_batch, *sizes)

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

    def spectra(self) -> Plan:
        """The HSVs of every layer, in a plan that cuts nothing."""
        model = self.model
        return self._reduction.plan(model, self.state.norm_state, ranks=layer_sizes(model))

    def report_spectra(self) -> None:
        with self.clock.phase("spectra"):
            layers = self.spectra().layers
        self.emit(
            "spectrum",
            layers=[
                {"path": layer.path, "d_state": layer.rank_before, "sigma": layer.sigma}
                for layer in layers
            ],
        )

    def rehearse(self) -> None:
        """Try out the next shrink in the background, with the state as it is now."""
        shrink = next(s for s in self._shrinks if s > self.step)
        ranks, batches = self._rehearsed, self._feed.batches(self.step)
        snapshot = jax.tree.map(lambda x: jax.device_put(np.array(x)), self.state)

        def plan_ahead() -> tuple[list[int] | None, Plan]:
            planned = self._plan_shrink(snapshot, shrink, ranks)
            if self.config.compression.mode != "tolerance":
                return [layer.rank_after for layer in planned.layers], planned
            needed = [self._policy()(layer.sigma) for layer in planned.layers]
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
        args = (smaller, Totals.zero(), batches, np.int32(1), self.key)
        yield "train step", self._programs.make("train step", self._train_steps, args)[1]
        batch = next(eval_batches(self._calibration, self._evaluation_batch()))
        for each in (state, smaller):
            args = (each.params, each.norm_state, Totals.zero(), *batch)
            yield "eval step", self._programs.make("eval step", self._eval_step, args)[1]
        self._reduction.certificates(planned, layers_of(after))

    def _rehearsed_ranks(self) -> list[int] | None:
        """The ranks that the rehearsal of the next shrink has found, if there was one."""
        return self._rehearsed if self._rehearsal is None else self._rehearsal.ranks()

    def _policy(self) -> rank.Policy:
        """How many states a layer needs, in mode `tolerance`."""
        compression = self.config.compression
        return rank.round_up(rank.tolerance(compression.tolerance), compression.multiple)

    def _plan_shrink(self, state: TrainState, step: int, rehearsed: list[int] | None) -> Plan:
        """What the configuration cuts at `step`. Raises `Diverged` for a model without HSVs."""
        compression = self.config.compression
        model = eqx.combine(state.params, self.static)
        try:
            if compression.mode == "tolerance":
                policy = settle(self._policy(), rehearsed, compression.multiple)
                gate = compression.gate
                return self._reduction.plan(model, state.norm_state, policy=policy, gate=gate)
            number = self._shrinks.index(step) + 1
            ranks = [
                min(now, rank_at(compression, number, initial))
                for now, initial in zip(layer_sizes(model), self.initial_sizes, strict=True)
            ]
            return self._reduction.plan(model, state.norm_state, ranks=ranks)
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
            before = self.model
            planned = self._plan_shrink(self.state, self.step, rehearsed)
            plan_seconds = time.perf_counter() - start
            start = time.perf_counter()
            after, opt_state = compress(
                before, self.state.opt_state, plan=planned, moments=compression.moments
            )
            params = eqx.filter(after, eqx.is_array)
            self.state = self.state._replace(params=params, opt_state=opt_state)
            compress_seconds = time.perf_counter() - start
            loss_after = self.measure(self._calibration)
            sizes = layer_sizes(after)
            certificates = self._reduction.certificates(planned, layers_of(after))
            loss_before, loss_after = loss_before.means()[0], loss_after.means()[0]
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
            layers=[
                {
                    "path": layer.path,
                    "before": layer.rank_before,
                    "after": size,
                    "sigma": layer.sigma,
                    "gramians": layer.gramians,
                    **certificate,
                }
                for layer, size, certificate in zip(
                    planned.layers, sizes, certificates, strict=True
                )
            ],
            loss_before=loss_before,
            loss_after=loss_after,
            plan_seconds=plan_seconds,
            compress_seconds=compress_seconds,
            duration=time.perf_counter() - started,
        )

    # The whole

    def run(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train to the end and return the summary. Raises `Interrupted` after saving."""
        loop = self.config.loop
        if self._saved is None:
            self.report_spectra()
        elif self._rehearsed is not None:
            self.rehearse()
        while self.step < self.config.steps:
            self.train_to(self._next_stop(), interrupt)
            last = self.step == self.config.steps
            shrinking = self.step in self._shrinks
            if shrinking:
                self.shrink()
            if not interrupt.requested and (self.step % loop.evaluate_every == 0 or last):
                self.evaluate("validation")
                self.report_spectra()
            if shrinking or interrupt.requested or last or self.step % loop.checkpoint_every == 0:
                self.save()
            if interrupt.requested and not last:
                self.emit("interrupt")
                raise Interrupted(self.step, self.folder)
        if "validation" not in self.results:  # resumed at the last step
            self.evaluate("validation")
        self.evaluate("test")
        self.emit("end")
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """What summary.json holds."""
        model = self.model
        seconds = self.clock.read()
        device = seconds.get("train", 0.0) + seconds.get("evaluate", 0.0)
        waited = seconds.get("host", 0.0)
        return {
            "task": self.task.name,
            "kind": self.task.kind,
            "model": self.config.model,
            "seed": self.config.seed,
            "total_steps": self.config.steps,
            "parameters_before": self.parameters_before,
            "parameters_after": parameter_count(self.state.params),
            **self.results,
            "baselines": dict(self.task.baselines),
            "layers": [
                {"path": path, "before": before, "after": after}
                for path, before, after in zip(
                    layer_paths(model), self.initial_sizes, layer_sizes(model), strict=True
                )
            ],
            "seconds": seconds,
            "host_share": 1 - device / seconds["total"],
            "data_share": waited / max(seconds.get("train", 0.0) + waited, 1e-9),
            "phases": self.phases,
        }

    def close(self) -> None:
        """Wait for the last checkpoint, and for a rehearsal to come to an end."""
        if self._rehearsal is not None:
            self._rehearsal.cancel()
        with self.clock.phase("checkpoint"):
            self._checkpoints.close()


def _signature(x: Any) -> tuple[Any, ...]:
    return (x.shape, x.dtype)


def _is_inexact_struct(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jnp.inexact)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, readable for a person."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")
