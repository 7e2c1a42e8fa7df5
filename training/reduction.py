"""How the layers of a run are weighed, cut and certified, as the configuration says."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import numpy as np

from compress import LayerPlan, Plan, plan, verify
from compress.hankel import Form
from compress.record import record
from data.task import Split

from .config import CompressionConfig


def calibration_split(train: Split, size: int, seed: int) -> Split:
    """The training sequences that states are weighed on and cuts are judged by."""
    rng = np.random.default_rng([seed, CALIBRATION_STREAM])
    rows = np.sort(rng.choice(len(train), min(size, len(train)), replace=False))
    return Split(train.inputs[rows], train.labels[rows], train.offset, train.scale)


class Reduction:
    """Plans the cuts of a model, by white noise or by what its layers do on calibration data."""

    def __init__(self, config: CompressionConfig, calibration: Split):
        self.config = config
        self._inputs, _ = calibration.take(np.arange(len(calibration)))
        self.form: Form = "complex" if config.method == "paper" else "real"

    def plan(self, model: Any, norm_state: eqx.nn.State, **how: Any) -> Plan:
        """`compress.plan` of the configured method; `how` says how many states stay."""
        if self.config.method != "data":
            return plan(model, form=self.form, **how)
        inputs, gradients = (
            {name.removeprefix("[0]."): x for name, x in records.items()}
            for records in record((model, norm_state), self._inputs, gradients=True)
        )
        return plan(model, inputs=inputs, gradients=gradients, **how)

    def certificates(self, planned: Plan, after: Any) -> list[dict[str, float | bool | None]]:
        """The bounds and the measured error of every layer; empty values where nothing was cut."""

        def certificate(row: LayerPlan, layer: Any) -> dict[str, float | bool | None]:
            if row.cut is None:
                return {"bound": 0.0, "sigma_next": 0.0, "error": None, "holds": None}
            (c,) = verify(row.cut.before, layer, form=self.form).layers
            return {"bound": c.bound, "sigma_next": c.floor, "error": c.error, "holds": c.holds}

        with ThreadPoolExecutor(os.cpu_count()) as each:
            return list(each.map(certificate, planned.layers, after))


CALIBRATION_STREAM = 3
"""Keeps the choice of sequences apart from other uses of the run's seed."""
