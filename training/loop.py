"""A run from its configuration to its report: train, evaluate, shrink, save."""

import json
import math
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from compress import Plan, compress, rank
from compress.layers import layers_of as keyed_layers
from compress.layers import path_name
from data.pipeline import eval_batches, train_batch
from data.task import Split, Task
from zoo import AbstractSSM, classifier

from .checkpoint import Checkpoints, resized
from .clock import Clock
from .config import RunConfig
from .interrupt import Interrupt
from .metrics import Sink, write_atomically
from .optimizer import make_optimizer
from .reduction import Reduction, calibration_split
from .schedule import learning_rate_schedule, rank_at, shrink_steps
from .step import Metrics, TrainState, make_eval_step, make_train_steps


class Interrupted(Exception):
    """The run was asked to stop; everything up to `step` is saved in `folder`."""

    def __init__(self, step: int, folder: Path):
        super().__init__(f"stopped at step {step}")
        self.step, self.folder = step, folder


class Diverged(ArithmeticError):
    """The loss is no longer a number; the last checkpoint is from before."""


def build_model(config: RunConfig, task: Task) -> tuple[Any, eqx.nn.State]:
    """The model that `config` describes for `task`, at its start, and its BatchNorm state."""
    network = config.network
    return classifier(
        lambda key: config.layer.build(network.d_model, key=key),
        input_kind=task.input_kind,
        input_size=task.input_size,
        classes=task.classes,
        d_model=network.d_model,
        blocks=network.blocks,
        norm=network.norm,
        dropout=network.dropout,
        bidirectional=network.bidirectional,
        key=jax.random.fold_in(jax.random.key(config.seed), 0),
    )


def parameter_count(params: Any) -> int:
    """Number of trained real numbers."""
    return sum(x.size for x in jax.tree.leaves(eqx.filter(params, eqx.is_inexact_array)))


def layers_of(model: Any) -> list[AbstractSSM]:
    """The state-space layers of a model, in order."""
    return [layer for _, layer in keyed_layers(model)]


def layer_sizes(model: Any) -> list[int]:
    """`d_state` of every state-space layer, in order."""
    return [layer.d_state for layer in layers_of(model)]


def layer_paths(model: Any) -> list[str]:
    """Where every state-space layer is in the model: `blocks[0].ssm`."""
    return [path_name(keys) for keys, _ in keyed_layers(model)]


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
        self._train_steps = make_train_steps(self.static, self.optimizer)
        self._eval_step = make_eval_step(self.static)
        self._programs: dict[Any, Any] = {}
        self._checkpoints = Checkpoints(folder / "checkpoints", config.loop.keep_checkpoints)
        self._saved: int | None = None
        self._shrinks = shrink_steps(config.compression, config.steps)
        size = config.compression.calibration
        self._calibration = calibration_split(task.splits["train"], size, config.seed)
        self._reduction = Reduction(config.compression, self._calibration)

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
            "classes": self.task.classes,
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
        seconds = {name: s for name, s in metadata["seconds"].items() if name != "total"}
        for name, value in self.clock.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        self.clock.seconds = seconds
        return True

    # Training

    def _program(self, what: str, function: Any, *args: Any) -> Any:
        """`function` compiled for the shapes of `args`: once for each, and timed."""
        key = (what, jax.tree.structure(args), tuple(map(_signature, jax.tree.leaves(args))))
        if key not in self._programs:
            start = time.perf_counter()
            with self.clock.phase("compile"):
                self._programs[key] = function.lower(*args).compile()
            self.emit("compile", seconds=time.perf_counter() - start, what=what)
        return self._programs[key]

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
        size, dispatch = self.config.batch_size, self.config.loop.steps_per_dispatch
        split = self.task.splits["train"]
        first, metrics = self.step, Metrics.zero()
        seconds_before = self.clock.read().get("train", 0.0)
        with self.clock.phase("train"):
            while self.step < stop and not interrupt.requested:
                count = min(dispatch, stop - self.step)
                batches = train_batch(split, size, self.config.seed, self.step, dispatch)
                args = (self.state, metrics, *batches, np.int32(count), self.key)
                self.state, metrics = self._program("train step", self._train_steps, *args)(*args)
                self.step += count
            if self.step == first:
                return
            loss, accuracy = metrics.means()  # waits for the device
        seconds = self.clock.read()
        self._note_phase(first, seconds["train"] - seconds_before)
        schedules = (
            learning_rate_schedule(self.config.optimizer, self.config.steps, factor)
            for factor in (1.0, self.config.optimizer.ssm_factor)
        )
        rate, rate_ssm = (np.asarray(schedule(self.step - 1)).item() for schedule in schedules)
        self.emit(
            "train",
            loss=loss,
            accuracy=accuracy,
            learning_rate=rate,
            learning_rate_ssm=rate_ssm,
            steps_per_second=(self.step - first) / (seconds["train"] - seconds_before),
            d_state=layer_sizes(self.model),
            seconds=seconds["total"],
        )
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

    def measure(self, split: Split, limit: int | None = None) -> tuple[float, float]:
        """Loss and accuracy on a split, or on its first `limit` batches."""
        metrics = Metrics.zero()
        for k, batch in enumerate(eval_batches(split, self._evaluation_batch())):
            if limit is not None and k >= limit:
                break
            args = (self.state.params, self.state.norm_state, metrics, *batch)
            metrics = self._program("eval step", self._eval_step, *args)(*args)
        return metrics.means()

    def _evaluation_batch(self) -> int:
        """One size for all splits, so that one program serves them."""
        sizes = (len(self.task.splits[name]) for name in ("validation", "test"))
        return min(self.config.loop.evaluation_batch, *sizes)

    def evaluate(self, name: str) -> None:
        """Measure loss and accuracy on the split called `name`, and report them."""
        start = time.perf_counter()
        with self.clock.phase("evaluate"):
            loss, accuracy = self.measure(self.task.splits[name])
        self.emit(
            "eval",
            split=name,
            loss=loss,
            accuracy=accuracy,
            seconds=self.clock.read()["total"],
            duration=time.perf_counter() - start,
        )
        self.results[name] = {"loss": loss, "accuracy": accuracy}

    # Shrinking

    def spectra(self) -> Plan:
        """The HSVs of every layer, in a plan that cuts nothing."""
        model = self.model
        return self._reduction.plan(model, self.state.norm_state, ranks=layer_sizes(model))

    def report_spectra(self) -> None:
        with self.clock.phase("evaluate"):
            layers = self.spectra().layers
        self.emit(
            "spectrum",
            layers=[
                {"path": layer.path, "d_state": layer.rank_before, "sigma": layer.sigma}
                for layer in layers
            ],
        )

    def _plan_shrink(self, model: Any) -> Plan:
        """What the configuration cuts at this step. Raises `Diverged` for a model without HSVs."""
        compression = self.config.compression
        try:
            if compression.mode == "tolerance":
                policy = rank.tolerance(compression.tolerance)
                policy = rank.round_up(policy, compression.multiple)
                norm_state, gate = self.state.norm_state, compression.gate
                return self._reduction.plan(model, norm_state, policy=policy, gate=gate)
            number = self._shrinks.index(self.step) + 1
            ranks = [
                min(now, rank_at(compression, number, initial))
                for now, initial in zip(layer_sizes(model), self.initial_sizes, strict=True)
            ]
            return self._reduction.plan(model, self.state.norm_state, ranks=ranks)
        except ValueError as error:
            raise Diverged(f"cannot shrink at step {self.step}: {error}") from error

    def shrink(self) -> None:
        """Cut every layer as the configuration says; report what it cost and what it changed."""
        compression = self.config.compression
        with self.clock.phase("shrink"):
            loss_before, _ = self.measure(self._calibration)
            start = time.perf_counter()
            before = self.model
            planned = self._plan_shrink(before)
            plan_seconds = time.perf_counter() - start
            start = time.perf_counter()
            after, opt_state = compress(
                before, self.state.opt_state, plan=planned, moments=compression.moments
            )
            params = eqx.filter(after, eqx.is_array)
            self.state = self.state._replace(params=params, opt_state=opt_state)
            compress_seconds = time.perf_counter() - start
            sizes = layer_sizes(after)
            certificates = self._reduction.certificates(planned, layers_of(after))
            loss_after, _ = self.measure(self._calibration)
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
        )

    # The whole

    def run(self, interrupt: Interrupt) -> dict[str, Any]:
        """Train to the end and return the summary. Raises `Interrupted` after saving."""
        loop = self.config.loop
        if self._saved is None:
            self.report_spectra()
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
        return {
            "task": self.task.name,
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
            "seconds": self.clock.read(),
            "phases": self.phases,
        }

    def close(self) -> None:
        """Wait for the last checkpoint."""
        with self.clock.phase("checkpoint"):
            self._checkpoints.close()


def _signature(x: Any) -> tuple[Any, ...]:
    return (x.shape, x.dtype)


def _is_inexact_struct(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct) and jnp.issubdtype(x.dtype, jnp.inexact)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, readable for a person."""
    write_atomically(path, json.dumps(content, indent=2) + "\n")
