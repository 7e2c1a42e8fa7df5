"""The shared state of a run."""

import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from data.task import Split, Task

from ..model.auxiliary import make_auxiliary
from ..model.forward import run_batch
from ..model.network import build_model, layer_sizes, with_static
from ..model.objective import OBJECTIVES, Totals
from ..model.optimizer import make_optimizer
from ..settings.config import RunConfig
from .checkpoint import Checkpoints
from .clock import Clock
from .describe import Beginning, summarize
from .engine import Engine
from .evaluation import Evaluation
from .feed import Feed
from .held import HeldState
from .interrupt import check_finite
from .placement import Placement
from .reporter import Reporter
from .step import DROPOUT_KEYS, TrainState


class Session:
    """The configuration and the data of a run, its state, its programs and its reports.

    All training results are in `state`; the rest follows from the configuration.
    After a shrink, `held` is as the programs of the larger state take it (see `Padding`), for some
    steps that follow from the schedule, in which those of the smaller one are compiled.

    `teacher` is the model to learn from, with its BatchNorm state.
    """

    def __init__(
        self,
        config: RunConfig[Any, Any],
        task: Task,
        folder: Path,
        clock: Clock,
        teacher: tuple[Any, eqx.nn.State] | None = None,
    ):
        self.config, self.task, self.folder, self.clock = config, task, folder, clock
        self.placement = Placement()
        self.optimizer = make_optimizer(config.optimizer, config.steps)
        self.objective = OBJECTIVES[task.kind].of(task)
        model, norm_state = build_model(config, task)
        params, self.static = eqx.partition(model, eqx.is_array)
        opt_state = self.optimizer.init(eqx.filter(params, eqx.is_inexact_array))
        self.held = HeldState(TrainState(params, norm_state, opt_state, jnp.zeros((), jnp.int32)))
        self.beginning = Beginning.of(model)
        self.step = 0
        self.phases: list[dict[str, Any]] = []
        self.results: dict[str, dict[str, float]] = {}
        self.tables: dict[str, list[list[int]]] = {}
        self.checkpoints = Checkpoints(folder / "checkpoints", config.loop.keep_checkpoints)
        self.reporter = Reporter(self.checkpoints, clock, self.placement.is_alone)
        self.engine = Engine(
            self.static,
            self.optimizer,
            self.objective,
            make_auxiliary(config, teacher, run_batch),
            jax.random.fold_in(jax.random.key(config.seed), 1),
            self.placement,
            clock,
            self.report_compiled,
            DROPOUT_KEYS[config.network.dropout_mask],
            config.precision,
        )
        self.feed = Feed(
            task.splits["train"],
            config.batch_size,
            config.seed,
            config.loop.steps_per_dispatch,
            clock,
            self.placement,
        )
        self.evaluation = Evaluation(
            task, config.loop.evaluation_batch, self.engine, self.placement
        )

    @property
    def state(self) -> TrainState:
        """The state, with as many states of the layers as they have."""
        return self.held.own

    @property
    def model(self) -> Any:
        """The current model."""
        return self.model_of(self.state)

    @property
    def sizes(self) -> list[int]:
        """The current states of each layer."""
        return layer_sizes(self.state.params)

    def model_of(self, state: TrainState) -> Any:
        """The model whose arrays are in `state`."""
        return with_static(state.params, self.static)

    def emit(self, event: str, **fields: Any) -> None:
        """Report an event of the present step."""
        self.reporter.emit(event, self.step, **fields)

    def report_compiled(self, name: str, seconds: float, background: bool = False) -> None:
        """Report that a program has been compiled, `background`: while training went on."""
        self.emit("compile", seconds=seconds, what=name, background=background)

    def check_finite(self) -> None:
        """`Diverged` where a parameter is not finite."""
        check_finite(self.state.params, self.step, self.checkpoints.latest())

    def measure(self, split: Split, limit: int | None = None) -> Totals:
        """Sums over a split, or over its first `limit` batches; does not wait for them."""
        return self.evaluation.totals(self.held.wide, split, limit)

    def evaluate(self, name: str) -> None:
        """Measure loss and measures on the split called `name`, and report them."""
        start = time.perf_counter()
        with self.clock.phase("evaluate"):
            totals = self.measure(self.task.splits[name])
            measured = self.objective.report(totals)
        self.emit(
            "eval",
            split=name,
            **measured,
            seconds=self.clock.read()["total"],
            duration=time.perf_counter() - start,
        )
        self.results[name] = measured
        self.tables[name] = np.asarray(totals.table).astype(int).tolist()

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return summarize(
            self.config,
            self.task,
            self.beginning,
            self.model,
            results=self.results,
            tables=self.tables,
            phases=self.phases,
            seconds=self.clock.read(),
        )
