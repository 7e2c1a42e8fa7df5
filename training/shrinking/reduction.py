"""Weighing, cuts and certificates of a run's layers, as configured."""

import math
from typing import Any

import equinox as eqx
import numpy as np

from compress import (
    AbstractMethod,
    AbstractPolicy,
    Data,
    LayerData,
    LayerPlan,
    Plan,
    family_of,
    plan,
    verify,
)
from compress.linear.data_gramians import sample_count
from compress.linear.hankel import Form
from compress.methods import Recorded
from compress.model.record import SLICE, record
from compress.numerics.threads import in_threads
from data.task import Batch, Split
from zoo.masks import within

from ..model.forward import run_sequence
from ..model.network import ssm_layers
from ..model.objective import is_asked
from ..model.padding import Padding, same_structure
from ..settings.config import RunConfig
from ..settings.methods import configured_method
from .describe import describe_cut


def calibration_split(config: RunConfig[Any, Any], train: Split) -> Split:
    """The training sequences that states are weighed on and cuts are judged by."""
    rng = np.random.default_rng([config.seed, CALIBRATION_STREAM])
    size = min(config.compression.calibration, len(train))
    rows = np.sort(rng.choice(len(train), size, replace=False))
    return train.select(rows)


def watched_split(calibration: Split, states: int) -> Split:
    """The sequences of `calibration` by which layers of so many states are watched between cuts.

    They have as many samples as moments are taken over. More of them would only spread these, and
    cost more than the steps between two spectra where batches are small.
    """
    lengths = calibration.lengths
    each = calibration.inputs.shape[1] if lengths is None else float(np.mean(lengths))
    count = SLICE * math.ceil(sample_count(states) / each / SLICE)
    count = min(count, len(calibration))
    return calibration.select(np.arange(count) * len(calibration) // count)


class Reduction:
    """Plans the cuts of a model, by the configured method or a given one.

    With `largest`, a model's arrays or their shapes, smaller ones are recorded as if they were of
    its size: one program serves them all.
    """

    def __init__(
        self,
        config: RunConfig[Any, Any],
        calibration: Split,
        largest: Any | None = None,
        method: AbstractMethod | None = None,
    ):
        self.config, self._seed, self._largest = config.compression, config.seed, largest
        self._method = method
        self._batch = calibration.take(np.arange(len(calibration)))
        self.form: Form = "complex" if self.config.method == "paper" else "real"

    def plan(
        self,
        model: Any,
        norm_state: eqx.nn.State,
        policy: AbstractPolicy,
        step: int = 0,
        refit: bool | None = None,
    ) -> Plan:
        """`compress.plan` by the run's method.

        `step` tells one shrink's random choice of states from another's. `refit` is that of `Data`.
        """
        method = self._method or configured_method(self.config, self._seed, step)
        if method is None:
            return plan(model, policy=policy, method=self._on_data(model, norm_state, refit))
        if method.needs_data:
            method = Recorded(method, self.seen(model, norm_state))
        return plan(model, policy=policy, method=method)

    def _on_data(self, model: Any, norm_state: eqx.nn.State, refit: bool | None) -> Data:
        seen = self.seen(model, norm_state)
        return Data(
            inputs={path: data.inputs for path, data in seen.items()},
            gradients={path: data.gradients for path, data in seen.items()},
            lengths=next(iter(seen.values())).lengths,
            refit=refit,
            maps=self.config.maps,
        )

    def seen(self, model: Any, norm_state: eqx.nn.State) -> dict[str, LayerData]:
        """The recordings of each layer on the calibration data, by its path."""
        inputs, gradients = record(
            (self._as_largest(model), norm_state), self._batch, _outputs, gradients=True
        )
        lengths = self._batch.lengths
        lengths = None if lengths is None else np.ravel(lengths)  # those of a pair one by one
        return {
            name.removeprefix("[0]."): LayerData(u, gradients[name], lengths)
            for name, u in inputs.items()
        }

    def _as_largest(self, model: Any) -> Any:
        if self._largest is None:
            return model
        params, static = eqx.partition(model, eqx.is_array)
        if not same_structure(self._largest, params):  # maps have come in
            return model
        padding = Padding(self._largest, params)
        return eqx.combine(padding.widen(params), static) if padding.is_needed else model

    def describe(self, planned: Plan, after: Any, sizes: list[int]) -> list[dict[str, Any]]:
        """The entries of the "shrink" event on the layers. `after` is the model of the plan,
        `sizes` are the current sizes.
        """
        return describe_cut(planned, sizes, self.certificates(planned, ssm_layers(after)))

    def certificates(self, planned: Plan, after: Any) -> list[dict[str, float | bool | None]]:
        """The bounds and the measured error of every layer; empty values without a cut."""

        def certificate(pair: tuple[LayerPlan, Any]) -> dict[str, float | bool | None]:
            row, layer = pair
            if row.cut is None:
                return {"bound": 0.0, "sigma_next": 0.0, "error": None, "holds": None}
            if not family_of(row.cut.before).has_bound:
                return {"bound": None, "sigma_next": None, "error": None, "holds": None}
            (c,) = verify(row.cut.before, layer, form=self.form).layers
            return {"bound": c.bound, "sigma_next": c.floor, "error": c.error, "holds": c.holds}

        return in_threads(certificate, zip(planned.layers, after, strict=True))


def _outputs(model: tuple[Any, eqx.nn.State], sample: Batch) -> Any:
    """The model's output for one sample, zero at padding and unknown labels."""
    outputs, _ = run_sequence(eqx.nn.inference_mode(model[0]), model[1], sample)
    if sample.label_mask is not None:
        known: Any = sample.label_mask
        outputs = outputs * known.reshape(*known.shape, *[1] * (outputs.ndim - known.ndim))
    if outputs.ndim == 1:
        return outputs
    if np.issubdtype(sample.labels.dtype, np.integer):
        outputs = outputs * is_asked(sample.labels)[:, None]
    if sample.lengths is None:
        return outputs
    length: Any = sample.lengths
    return outputs * within(length, len(outputs))[:, None]


CALIBRATION_STREAM = 3
"""Keeps the choice of sequences apart from other uses of the run's seed."""
