"""The paper's main question on every task: start large and shrink, or start small?

Published figures are those of the paper's tables for LRU (Chahine et al., ICLR 2026).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .options import (
    BY_TOLERANCE,
    PAPER,
    RECORDED,
    SHORT_SCALED,
    SMALL_SCALED,
    SMNIST_SCALED,
    TEN_TIMES_FASTER,
    UNCOMPRESSED,
)
from .study import Options, Published, Study, Variant

NOTHING = Published()


def ordering(
    tolerances: Sequence[float],
    published: Mapping[str, Published] = MappingProxyType({}),
    models: Sequence[str] = ("lru", "s5"),
) -> tuple[Variant, ...]:
    """Uncompressed; compressed at each tolerance; trained at the final state of each; by model."""
    variants = []
    for model in models:
        told = published if model == "lru" else {}
        big = f"{model} uncompressed"

        def variant(name, options=UNCOMPRESSED, sized_by=None, model=model, told=told, big=big):
            return Variant(
                f"{model} {name}",
                options,
                sized_by=sized_by,
                model=model,
                reference=big,
                published=told.get(name, NOTHING),
            )

        variants.append(variant("uncompressed"))
        for tau in tolerances:
            how = {**BY_TOLERANCE, "compression.tolerance": tau}
            variants.append(variant(f"tolerance {tau:g}", how))
        for tau in tolerances:
            variants.append(
                variant(f"from the start as {tau:g}", sized_by=f"{model} tolerance {tau:g}")
            )
    return tuple(variants)


def ordering_study(
    task: str,
    tolerances: Sequence[float],
    scaled_down: str,
    published: Mapping[str, Published] = MappingProxyType({}),
    models: Sequence[str] = ("lru", "s5"),
    options: Options = PAPER,
    cpu: Options = MappingProxyType({}),
    name: str | None = None,
) -> Study:
    """The paper's main question on one task."""
    return Study(
        name=name or task,
        question=(
            "Does a model that starts large and shrinks end better than a model that has the "
            "final size from the start? Does it end close to a model that stays large?"
        ),
        model=models[0],
        task=task,
        reference=f"{models[0]} uncompressed",
        options=options,
        cpu=cpu,
        scaled_down=scaled_down,
        variants=ordering(tolerances, published, models),
    )


ORDERINGS = (
    ordering_study(
        "smnist",
        (0.01, 0.02, 0.04),
        SMNIST_SCALED,
        {
            "uncompressed": Published(256, 97.3),
            "tolerance 0.01": Published(46.8, 96.9),
            "tolerance 0.02": Published(27.6, 96.9),
            "tolerance 0.04": Published(12.7, 95.9),
            "from the start as 0.04": Published(13, 92.6),
        },
        models=("lru",),
        cpu=TEN_TIMES_FASTER,
    ),
    ordering_study(
        "smnist",
        (0.02,),
        SHORT_SCALED,
        {
            "uncompressed": Published(256, 97.3),
            "tolerance 0.02": Published(27.6, 96.9),
        },
        models=("lru",),
        options=RECORDED,  # else the small preset as it is
        name="smnist-short",
    ),
    ordering_study(
        "smnist",
        (0.01, 0.02, 0.04),
        SMNIST_SCALED,
        models=("s5",),
        cpu=TEN_TIMES_FASTER,
        name="smnist-s5",
    ),
    ordering_study(
        "scifar",
        (0.05, 0.10, 0.15),
        SMALL_SCALED,
        {
            "uncompressed": Published(384, 86.5),
            "tolerance 0.05": Published(160.8, 85.8),
            "tolerance 0.1": Published(92.6, 85.7),
            "tolerance 0.15": Published(57.4, 84.4),
            "from the start as 0.15": Published(57, 78.2),
        },
    ),
    ordering_study("listops", (0.05, 0.10), SMALL_SCALED),
    ordering_study("imdb", (0.05, 0.10), SMALL_SCALED),
    ordering_study("aan", (0.05, 0.10), SMALL_SCALED),
    ordering_study("pathfinder", (0.05, 0.10), SMALL_SCALED),
    ordering_study(
        "charlm", (0.1, 0.2), SMALL_SCALED, models=("mamba",), options={}, name="charlm-mamba"
    ),
    ordering_study(
        "scifar", (0.1, 0.2), SMALL_SCALED, models=("mamba",), options={}, name="scifar-mamba"
    ),
)
