"""What a run says about itself: at its start, and at its end."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compress import LayerPlan, Plan

from ..model.network import layer_paths, layer_sizes, parameter_count
from ..model.sample import written_sample

if TYPE_CHECKING:
    from .loop import Run


def describe(run: "Run") -> dict[str, Any]:
    """What the "start" event says."""
    return {
        "task": run.task.name,
        "model": run.config.model,
        "seed": run.config.seed,
        "total_steps": run.config.steps,
        "parameters": run.parameters_before,
        "length": run.task.length,
        "kind": run.task.kind,
        "outputs": run.task.outputs,
        "baselines": dict(run.task.baselines),
        "layers": [
            {"path": path, "d_state": size}
            for path, size in zip(layer_paths(run.model), run.initial_sizes, strict=True)
        ],
    }


def describe_cut(
    planned: Plan, sizes: Sequence[int], certificates: Sequence[Mapping[str, float | bool | None]]
) -> list[dict[str, Any]]:
    """What the "shrink" event says of the layers, whose `sizes` are those after it.

    `certificates` are those of `Reduction.certificates`.
    """
    return [
        {
            "path": layer.path,
            "before": layer.rank_before,
            "after": size,
            "sigma": layer.sigma,
            "gramians": layer.gramians,
            **certificate,
        }
        for layer, size, certificate in zip(planned.layers, sizes, certificates, strict=True)
    ]


def describe_spectra(layers: Sequence[LayerPlan]) -> list[dict[str, Any]]:
    """What the "spectrum" event says of the layers."""
    return [
        {"path": layer.path, "d_state": layer.rank_before, "sigma": layer.sigma} for layer in layers
    ]


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


def summarize(run: "Run") -> dict[str, Any]:
    """What summary.json holds."""
    model = run.model
    seconds = run.clock.read()
    device = seconds.get("train", 0.0) + seconds.get("evaluate", 0.0)
    waited = seconds.get("host", 0.0)
    return {
        "task": run.task.name,
        "kind": run.task.kind,
        "model": run.config.model,
        "seed": run.config.seed,
        "total_steps": run.config.steps,
        "parameters_before": run.parameters_before,
        "parameters_after": parameter_count(run.state.params),
        **run.results,
        "baselines": dict(run.task.baselines),
        "layers": [
            {"path": path, "before": before, "after": after}
            for path, before, after in zip(
                layer_paths(model), run.initial_sizes, layer_sizes(model), strict=True
            )
        ],
        "seconds": seconds,
        "host_share": 1 - device / seconds["total"],
        "data_share": waited / max(seconds.get("train", 0.0) + waited, 1e-9),
        "phases": run.phases,
        "sample": written_sample(model, run.task, run.config.seed),
    }
