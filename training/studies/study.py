"""The definition of studies: variants of one run, over seeds, and their configurations."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..settings.config import RunConfig
from ..settings.options import with_options
from ..settings.presets import preset
from ..settings.yaml import plain_config

Scale = Literal["cpu", "paper"]
Options = Mapping[str, Any]
"""Options of the training script by their dotted names, without the dashes: `compression.mode`."""


@dataclass(frozen=True)
class Published:
    """The published figures for a variant."""

    states: float | int | None = None
    """Mean final state of a layer."""
    score: float | int | None = None
    """Test accuracy, in %."""


@dataclass(frozen=True)
class Variant:
    """One row of a study: the base run with other options."""

    name: str
    options: Options = field(default_factory=dict)
    sized_by: str | None = None
    """The variant whose final state (mean over its layers, same seed) this one starts with."""
    taught_by: str | None = None
    """The variant whose final model (same seed) this one learns from."""
    cut_from: str | None = None
    """The variant whose final model (same seed) is cut after its training, to `compression.rank`
    states: nothing is trained."""
    model: str | None = None
    """Instead of the study's."""
    task: str | None = None
    """Instead of the study's. Its official files are then in a folder of its name."""
    reference: str | None = None
    """Instead of the study's: what speed-ups are relative to."""
    published: Published = Published()

    @property
    def needs(self) -> tuple[str, ...]:
        """The variants that must be finished first."""
        names = (self.sized_by, self.taught_by, self.cut_from)
        return tuple(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class Study:
    """A study: its question, its runs, and its changes at a smaller scale."""

    name: str
    question: str
    model: str
    task: str
    variants: tuple[Variant, ...]
    reference: str
    """The variant that speed-ups are relative to."""
    options: Options = field(default_factory=dict)
    """For every variant, at both scales."""
    cpu: Options = field(default_factory=dict)
    """For every variant at scale cpu, over the training script's small preset."""
    scaled_down: str = ""
    """A description of the changes of scale cpu against the published setting."""
    seeds: int = 3
    compares: tuple[str, ...] = ()
    """Of a study over pairs of a model and a task, the ways that each is run, by the ends of the
    variants' names: first the whole model, last the way under study."""

    def __post_init__(self):
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"study {self.name}: two variants are called {name!r}")
            same = [each for each in names if run_name(each, 0) == run_name(name, 0)]
            if len(same) > 1:
                raise ValueError(f"study {self.name}: the files of {same} would have one name")
        for k, variant in enumerate(self.variants):
            for needed in variant.needs:
                if needed not in names[:k]:
                    raise ValueError(
                        f"study {self.name}: {needed!r} must stand before {variant.name}, which "
                        "needs it"
                    )
        for reference in (self.reference, *(v.reference for v in self.variants)):
            if reference is not None and reference not in names:
                raise ValueError(
                    f"study {self.name}: `reference` must be a variant, got {reference!r}"
                )

    def variant(self, name: str) -> Variant:
        """The variant called `name`."""
        return next(variant for variant in self.variants if variant.name == name)


@dataclass(frozen=True)
class Planned:
    """One run of a study, as far as it is known before the runs that it needs."""

    variant: Variant
    seed: int
    config: RunConfig[Any, Any]

    @property
    def name(self) -> str:
        """The name of its folder and its record, such as `uncompressed-seed0`."""
        return run_name(self.variant.name, self.seed)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that must be finished first."""
        return tuple(run_name(name, self.seed) for name in self.variant.needs)

    def settled(self, finished: Mapping[str, Mapping[str, Any]], runs: Path) -> "Planned":
        """This run with the settings from the finished runs of `needs`, in folder `runs`."""
        config = self.config
        if self.variant.sized_by is not None:
            before = finished[run_name(self.variant.sized_by, self.seed)]["summary"]
            layer = replace(config.layer, d_state=max(1, round(final_state(before))))
            config = replace(config, layer=layer)
        if self.variant.taught_by is not None:
            teacher = runs / run_name(self.variant.taught_by, self.seed)
            config = replace(config, distillation=replace(config.distillation, teacher=teacher))
        return replace(self, config=config)

    def is_run_of(self, record: Mapping[str, Any]) -> bool:
        """Whether a finished run's record is of this configuration, wherever its folders were.

        Settings that do not change the training result, such as the number of sequences in
        evaluations, are not compared. Settings that are newer than the record count as defaults.
        """
        model, layer, data = self.config.model, type(self.config.layer)(), type(self.config.data)()
        defaults = plain_config(RunConfig(model=model, layer=layer, data=data))

        def learned(config: Mapping[str, Any]) -> dict[str, Any]:
            kept = comparable(config)
            compression = {**kept["compression"], "rehearsal": None}
            return kept | {
                "compression": compression,
                "loop": {**kept["loop"], "evaluation_batch": None},
            }

        return learned(plain_config(self.config)) == learned(_filled(record["config"], defaults))


def _filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, and what it lacks from `defaults`, at every level."""
    filled = {**defaults, **given}
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(filled[name], Mapping):
            filled[name] = _filled(filled[name], default)
    return filled


def run_name(variant: str, seed: int) -> str:
    """`lru-tolerance-0.02-seed0`: a variant and a seed as a file name, without blanks."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', variant).strip('-')}-seed{seed}"


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without paths, which differ between machines. An unused tolerance, an empty
    list of plug-ins and unset maps are removed too, for comparison with older runs.
    """
    kept = {k: v for k, v in config.items() if k not in ("data_dir", "cache_dir")}
    if not kept.get("plugins"):
        kept.pop("plugins", None)
    compression = dict(kept["compression"])
    if compression["mode"] != "tolerance":
        compression.pop("tolerance", None)
    if compression.get("maps") is None:
        compression.pop("maps", None)
    teacher = {**kept["distillation"], "teacher": None}
    return kept | {"compression": compression, "distillation": teacher}


def final_state(summary: Mapping[str, Any]) -> float:
    """Mean number of states of a layer at the end of a run."""
    after = [layer["after"] for layer in summary["layers"]]
    return sum(after) / len(after)


def plan_runs(
    study: Study,
    scale: Scale,
    seeds: Sequence[int],
    data_dir: Path | None = None,
) -> list[Planned]:
    """All runs of a study, every configuration checked.

    ValueError (a `UsageError`) names what is wrong with one.
    """
    configs = []
    for variant in study.variants:
        options = {
            "compression.mode": "tolerance",  # that of the presets when the studies were made
            **study.options,
            **(study.cpu if scale == "cpu" else {}),
            **variant.options,
        }
        task = variant.task or study.task
        files = data_dir if data_dir is None or variant.task is None else data_dir / task
        if files is not None and (variant.task is None or files.is_dir()):
            options["data-dir"] = files
        base = preset(variant.model or study.model, task, "small" if scale == "cpu" else "paper")
        configs.append(with_options(base, options))
    return [
        Planned(variant, seed, replace(config, seed=seed))
        for seed in seeds
        for variant, config in zip(study.variants, configs, strict=True)
    ]


def describe(study: Study, scale: Scale) -> dict[str, Any]:
    """The study as its results file repeats it."""
    return {
        "study": study.name,
        "question": study.question,
        "model": study.model,
        "task": study.task,
        "scale": scale,
        "scaled_down": study.scaled_down if scale == "cpu" else "",
        "reference": study.reference,
        "variants": [asdict(variant) for variant in study.variants],
    }
