"""The descriptions of a run in its "start" event and in its summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.task import Task

from ..model.network import layer_paths, layer_sizes, parameter_count
from ..model.sample import written_sample
from ..settings.config import RunConfig


@dataclass(frozen=True)
class Beginning:
    """The size of a model at the start of its run."""

    paths: tuple[str, ...]
    """Where each layer is in the model."""
    d_state: tuple[int, ...]
    """The states of each layer."""
    parameters: int
    """How many real numbers are trained."""

    @classmethod
    def of(cls, model: Any) -> "Beginning":
        """The size of `model`, which may be its arrays alone."""
        return cls(tuple(layer_paths(model)), tuple(layer_sizes(model)), parameter_count(model))


def describe(config: RunConfig[Any, Any], task: Task, beginning: Beginning) -> dict[str, Any]:
    """The "start" event."""
    return {
        "task": task.name,
        "model": config.model,
        "seed": config.seed,
        "total_steps": config.steps,
        "parameters": beginning.parameters,
        "length": task.length,
        "kind": task.kind,
        "outputs": task.outputs,
        "baselines": dict(task.baselines),
        "layers": [
            {"path": path, "d_state": size}
            for path, size in zip(beginning.paths, beginning.d_state, strict=True)
        ],
    }


def note_phase(
    phases: list[dict[str, Any]],
    first: int,
    step: int,
    sizes: list[int],
    width: list[int],
    seconds: float,
) -> None:
    """Add the steps from `first` to `step` to the last phase: steps of one size in one program."""
    now = {"d_state": sizes, "width": width}
    if not phases or any(phases[-1].get(name) != now[name] for name in now):
        phases.append({"from_step": first, **now, "seconds": 0.0})
    phase = phases[-1]
    phase["to_step"] = step
    phase["seconds"] += seconds
    phase["steps_per_second"] = (step - phase["from_step"]) / phase["seconds"]


def summarize(
    config: RunConfig[Any, Any],
    task: Task,
    beginning: Beginning,
    model: Any,
    *,
    results: Mapping[str, Mapping[str, float]],
    tables: Mapping[str, Sequence[Sequence[int]]],
    phases: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The content of summary.json for a run that began with `beginning` and ended with `model`.

    `results` are the loss and the measures by split, `tables` those of `Totals`, `phases` those of
    `note_phase`, and `seconds` the wall times that the run's clock reads.
    """
    device = seconds.get("train", 0.0) + seconds.get("evaluate", 0.0)
    waited = seconds.get("host", 0.0)
    return {
        "task": task.name,
        "kind": task.kind,
        "model": config.model,
        "seed": config.seed,
        "total_steps": config.steps,
        "parameters_before": beginning.parameters,
        "parameters_after": parameter_count(model),
        **results,
        "baselines": dict(task.baselines),
        "tables": {name: table for name, table in tables.items() if table},
        "output_names": task.output_names,
        "layers": [
            {"path": path, "before": before, "after": after}
            for path, before, after in zip(
                layer_paths(model), beginning.d_state, layer_sizes(model), strict=True
            )
        ],
        "seconds": seconds,
        "host_share": 1 - device / seconds["total"],
        "data_share": waited / max(seconds.get("train", 0.0) + waited, 1e-9),
        "phases": phases,
        "sample": written_sample(model, task, config.seed),
    }
