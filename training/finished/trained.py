"""A trained model with its configuration, task and state, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from compress import AbstractMethod, AbstractPolicy, Plan, compress, plan
from data.pipeline import eval_batches
from data.task import Split, Task

from ..model.forward import run_batch
from ..model.network import layer_sizes
from ..model.objective import OBJECTIVES
from ..run.checkpoint import has_maps
from ..run.step import make_eval_step
from ..settings.config import CompressionConfig, RunConfig
from ..settings.errors import check_new
from ..settings.yaml import plain_config
from ..shrinking.reduction import Reduction
from .folder import save_model
from .inputs import as_split, in_units
from .kept_task import describe_task
from .streaming import Stream, stream_of


@dataclass(frozen=True)
class TrainedRun:
    """The result of a run: `training.load_run` and `training.fit` return one."""

    config: RunConfig[Any, Any]
    """The configuration of its training."""
    task: Task
    """Its task. From a run directory it comes without data, which no method needs."""
    model: Any
    """The model, an Equinox module of one sequence."""
    state: eqx.nn.State
    """Its BatchNorm statistics, which a call of `model` takes: `model(x, state)`."""
    summary: Mapping[str, Any]
    """The content of summary.json: measures, states before and after, times."""
    batch: int
    """Sequences that run at once: as many as in the run's own evaluation, so that numbers are
    equal."""
    folder: Path | None = None
    """The folder that it was loaded from."""

    def predict(
        self,
        inputs: Any,
        lengths: Any = None,
        intervals: Any = None,
        *,
        batch: int | None = None,
        scaled: bool = False,
    ) -> np.ndarray:
        """The outputs of the model for each sequence, `batch` of them at once.

        `inputs` are as the splits of the task hold them, before normalisation, which the run has
        kept: [n L channels], tokens [n L], or pairs of these [n 2 L]. `lengths` [n] are those of
        sequences that are padded at their end, `intervals` [n L] the times before each sample.

        Returns logits [n classes], values [n k] or [n L k], or logits of the next token
        [n L vocabulary]. Values are in the units of the data; with `scaled` they are as the model
        was trained on them, which is what its errors are of: a forecast's in deviations of each
        column. What stands beyond a sequence's length means nothing. ValueError for arrays that do
        not fit the task.
        """
        split = as_split(self.task, inputs, lengths, intervals)
        size = self.batch if batch is None else batch
        pieces = []
        for rows, mask in eval_batches(split, min(size, len(split))):
            outputs = _outputs(self.model, self.state, rows)
            pieces.append(np.asarray(outputs)[mask])
        found = np.concatenate(pieces)
        return found if scaled else in_units(self.task, found)

    def score(self, split: Split) -> dict[str, float]:
        """The loss and the measures on a split of the task, by their names in `summary`."""
        params, static = eqx.partition(self.model, eqx.is_array)
        objective = OBJECTIVES[self.task.kind].of(self.task)
        step, totals = make_eval_step(static, objective), objective.zero()
        for rows, mask in eval_batches(split, self.batch):
            totals = step(params, self.state, totals, rows, mask)
        return objective.report(totals)

    def stream(self, *, scaled: bool = False) -> Stream:
        """The model sample by sample, its carry in the caller's hand.

        The last output of a sequence is that of `predict`, `scaled` or not. A ValueError in one
        sentence for a model that needs the future: with bidirectional layers, or of pairs.
        """
        return stream_of(self.model, self.state, self.task, scaled)

    def plan(
        self,
        policy: AbstractPolicy,
        method: AbstractMethod | None = None,
        *,
        inputs: Any = None,
        lengths: Any = None,
        intervals: Any = None,
    ) -> Plan:
        """Plan a cut of the layers: `compress.plan` of this model. States are weighed by `method`,
        or on `inputs` as for `predict`; by white noise if neither is given. Layers of Mamba need
        data.
        """
        if inputs is None:
            return plan(self.model, policy=policy, method=method)
        if method is not None:
            raise ValueError(f"`method` must be None where `inputs` are given, got {method!r}")
        config = replace(self.config, compression=CompressionConfig(method="data"))
        split = as_split(self.task, inputs, lengths, intervals)
        return Reduction(config, split).plan(self.model, self.state, policy)

    def compressed(self, plan: Plan) -> "TrainedRun":
        """This run with the smaller model that `plan` makes; `summary` stays that of the run."""
        return replace(self, model=compress(self.model, plan=plan)[0])

    def save(self, folder: Path | str) -> Path:
        """Write the model to a new folder, as safetensors and JSON; `training.load_run` reads it.

        Returns the folder. ValueError if it holds files.
        """
        folder = Path(folder)
        check_new("folder", folder)
        arrays = {"model": eqx.filter(self.model, eqx.is_array), "state": self.state}
        about = {
            "config": plain_config(self.config),
            "task": describe_task(self.task),
            "d_state": layer_sizes(self.model),
            "maps": has_maps(self.model),
            "batch": self.batch,
            "summary": dict(self.summary),
        }
        save_model(folder, arrays, about)
        return folder


@eqx.filter_jit
def _outputs(model: Any, state: eqx.nn.State, batch: Any) -> Any:
    batch = batch._replace(labels=jnp.zeros(len(batch.labels)))
    return run_batch(eqx.nn.inference_mode(model), state, batch)[0]
