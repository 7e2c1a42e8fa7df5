"""The programs of a run on its device, compiled ahead of time or on first use."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from data.task import Batch
from zoo.layers.half import Precision

from ..model.auxiliary import Auxiliary
from ..model.objective import Objective, Totals
from .clock import Clock
from .placement import Placement
from .programs import Programs, Wait, at_once
from .step import DropoutKeys, TrainState, make_eval_step, make_train_steps

Compiled = tuple[str, float | None]
"""The name of a program, and the seconds of its compilation; None if it existed already."""


class Engine:
    """Runs training and evaluation steps.

    A step is compiled once for all states of one size. `compiled(name, seconds)` is called after
    the caller had to wait for that. `key` is what dropout draws from; `precision` is that of
    training steps, evaluations are in single.
    """

    def __init__(
        self,
        static: Any,
        optimizer: optax.GradientTransformation,
        objective: Objective,
        auxiliary: Auxiliary,
        key: jax.Array,
        placement: Placement,
        clock: Clock,
        compiled: Callable[[str, float], None],
        dropout_keys: DropoutKeys,
        precision: Precision,
    ):
        self._placement, self._clock, self._compiled = placement, clock, compiled
        self._key, self._arrays = key, auxiliary.arrays
        self._programs = Programs()
        self.zero = objective.zero
        self._train_steps = make_train_steps(
            static,
            optimizer,
            objective,
            auxiliary.join,
            placement.outputs,
            dropout_keys,
            precision,
        )
        self._eval_step = make_eval_step(static, objective, placement.outputs)

    def train(
        self,
        state: TrainState,
        totals: Totals,
        batches: Batch,
        count: int,
        wait: Wait = at_once,
    ) -> tuple[TrainState, Totals]:
        """Train on the first `count` of the batches; `state` and `totals` are used up.

        `wait` waits for the compiler; if it raises, both stay unchanged.
        """
        args = self._train_arguments(state, totals, batches, count)
        done = self._program("train step", self._train_steps, args, wait)(*args)
        return self._placement.own(done)

    def evaluate(self, state: TrainState, totals: Totals, batch: tuple[Batch, Any]) -> Totals:
        """Add the totals of a batch, whose second part masks its rows, to `totals`."""
        args = self._eval_arguments(state, totals, batch)
        return self._placement.own(self._program("eval step", self._eval_step, args)(*args))

    def compile_train(self, state: TrainState, batches: Batch) -> Compiled:
        """Compile the training step for states and batches of these shapes."""
        args = self._train_arguments(state, self.zero(), batches, 1)
        return "train step", self._programs.make("train step", self._train_steps, args)[1]

    def compile_eval(self, state: TrainState, batch: tuple[Batch, Any]) -> Compiled:
        """Compile the evaluation step for states and batches of these shapes."""
        args = self._eval_arguments(state, self.zero(), batch)
        return "eval step", self._programs.make("eval step", self._eval_step, args)[1]

    def _program(
        self, name: str, function: Any, args: tuple[Any, ...], wait: Wait = at_once
    ) -> Any:
        program = self._programs.find(name, args)
        if program is None:
            with self._clock.phase("compile"):
                program, seconds = self._programs.make(name, function, args, wait)
            if seconds is not None:
                self._compiled(name, seconds)
        return program

    def _train_arguments(
        self, state: TrainState, totals: Totals, batches: Batch, count: int
    ) -> tuple[Any, ...]:
        args = (state, totals, batches, np.int32(count), self._key, self._arrays)
        return self._placement.share(args)

    def _eval_arguments(
        self, state: TrainState, totals: Totals, batch: tuple[Batch, Any]
    ) -> tuple[Any, ...]:
        return self._placement.share((state.params, state.norm_state, totals, *batch))
