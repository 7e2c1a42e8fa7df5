"""How the layers of a run are weighed, cut and certified, as the configuration says."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from compress import LayerPlan, Plan, plan, verify
from compress.linear.hankel import Form
from compress.linear.selection import Selection, random_values, smallest_values
from compress.model.record import Records, record
from data.task import Batch, Split
from zoo import AbstractSelectiveSSM

from ..model.forward import run_sequence
from ..model.network import layers_of
from ..model.padding import Padding
from ..settings.config import RunConfig
from .describe import describe_cut


def calibration_split(config: RunConfig[Any, Any], train: Split) -> Split:
    """The training sequences that states are weighed on and cuts are judged by."""
    rng = np.random.default_rng([config.seed, CALIBRATION_STREAM])
    size = min(config.compression.calibration, len(train))
    rows = np.sort(rng.choice(len(train), size, replace=False))
    return train.select(rows)


class Reduction:
    """Plans the cuts of a model, by white noise or by what its layers do on calibration data.

    With `largest`, a model's arrays or their shapes, smaller ones are recorded as if they were of
    its size: one program serves them all.
    """

    def __init__(self, config: RunConfig[Any, Any], calibration: Split, largest: Any | None = None):
        self.config, self._seed, self._largest = config.compression, config.seed, largest
        self._batch = calibration.take(np.arange(len(calibration)))
        self.form: Form = "complex" if self.config.method == "paper" else "real"

    def plan(self, model: Any, norm_state: eqx.nn.State, step: int = 0, **how: Any) -> Plan:
        """`compress.plan` of the configured method; `how` says how many states stay.

        `step` tells one shrink's random choice of states from another's.
        """
        if self.config.method != "data":
            optimal = self.config.method == "optimal"
            return plan(model, form=self.form, optimal=optimal, select=self._select(step), **how)
        inputs, gradients, lengths = self.seen(model, norm_state)
        return plan(model, inputs=inputs, gradients=gradients, lengths=lengths, **how)

    def seen(self, model: Any, norm_state: eqx.nn.State) -> tuple[Records, Records, Any]:
        """On the calibration data, the layers' inputs, the gradients by their outputs, by the
        layers' paths, and the lengths of the sequences where they are padded."""
        inputs, gradients = (
            {name.removeprefix("[0]."): x for name, x in seen.items()}
            for seen in record(
                (self._as_largest(model), norm_state), self._batch, _outputs, gradients=True
            )
        )
        lengths = self._batch.lengths
        return inputs, gradients, None if lengths is None else np.ravel(lengths)  # a pair's in turn

    def _as_largest(self, model: Any) -> Any:
        if self._largest is None:
            return model
        params, static = eqx.partition(model, eqx.is_array)
        padding = Padding(self._largest, params)
        return eqx.combine(padding.widen(params), static) if padding.is_needed else model

    def _select(self, step: int) -> Selection | None:
        if self.config.keep == "random":
            return random_values(np.random.SeedSequence([self._seed, step]).generate_state(1)[0])
        return smallest_values if self.config.keep == "smallest" else None

    def describe(self, planned: Plan, after: Any, sizes: list[int]) -> list[dict[str, Any]]:
        """What the "shrink" event says of the layers.

        `after` is the model that the plan leads to, `sizes` are those that the layers have now.
        """
        return describe_cut(planned, sizes, self.certificates(planned, layers_of(after)))

    def certificates(self, planned: Plan, after: Any) -> list[dict[str, float | bool | None]]:
        """The bounds and the measured error of every layer; empty values where nothing was cut."""

        def certificate(row: LayerPlan, layer: Any) -> dict[str, float | bool | None]:
            if row.cut is None:
                return {"bound": 0.0, "sigma_next": 0.0, "error": None, "holds": None}
            if isinstance(row.cut.before, AbstractSelectiveSSM):  # no bound is known for these
                return {"bound": None, "sigma_next": None, "error": None, "holds": None}
            (c,) = verify(row.cut.before, layer, form=self.form).layers
            return {"bound": c.bound, "sigma_next": c.floor, "error": c.error, "holds": c.holds}

        with ThreadPoolExecutor(os.cpu_count()) as each:
            return list(each.map(certificate, planned.layers, after))


def _outputs(model: tuple[Any, eqx.nn.State], sample: Batch) -> Any:
    """What the model makes of one sample, zero where the sample is padding."""
    outputs, _ = run_sequence(eqx.nn.inference_mode(model[0]), model[1], sample)
    if sample.lengths is None or outputs.ndim == 1:
        return outputs
    return outputs * (jnp.arange(len(outputs)) < sample.lengths)[:, None]


CALIBRATION_STREAM = 3
"""Keeps the choice of sequences apart from other uses of the run's seed."""
