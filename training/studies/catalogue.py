"""The studies: the paper's claims, and what goes beyond them, as lists of runs.

Published figures are those of the paper's tables for LRU (Chahine et al., ICLR 2026).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .study import Options, Published, Study, Variant

UNCOMPRESSED: Options = {"compression.mode": "none"}
RECORDED: Options = {"compression.calibration": 256}
"""What was the default when the first runs of these studies were made."""
PAPER: Options = {**RECORDED, "compression.method": "paper", "compression.multiple": 1}
NOTHING = Published()


def ordering(
    tolerances: Sequence[float],
    published: Mapping[str, Published] = MappingProxyType({}),
    models: Sequence[str] = ("lru", "s5"),
) -> tuple[Variant, ...]:
    """Uncompressed; compressed at each tolerance; born at the final state of each; by model."""
    variants = []
    for model in models:
        told = published if model == "lru" else {}
        big = f"{model} uncompressed"

        def variant(name, options=UNCOMPRESSED, born_from=None, model=model, told=told, big=big):
            return Variant(
                f"{model} {name}",
                options,
                born_from=born_from,
                model=model,
                reference=big,
                published=told.get(name, NOTHING),
            )

        variants.append(variant("uncompressed"))
        for tau in tolerances:
            variants.append(variant(f"tolerance {tau:g}", {"compression.tolerance": tau}))
        for tau in tolerances:
            variants.append(variant(f"born as {tau:g}", born_from=f"{model} tolerance {tau:g}"))
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
            "Does a model that starts large and shrinks end better than one that is born at its "
            "final state, and near the one that stays large?"
        ),
        model=models[0],
        task=task,
        reference=f"{models[0]} uncompressed",
        options=options,
        cpu=cpu,
        scaled_down=scaled_down,
        variants=ordering(tolerances, published, models),
    )


TEN_TIMES_FASTER: Options = {
    "steps": 20_000,
    "optimizer.learning-rate": 4e-3,
    "optimizer.schedule": "constant",
    "optimizer.ssm-factor": 1.0,
    "compression.shrinks": 16,
    "loop.evaluate-every": 2000,
    "loop.checkpoint-every": 5000,
    "loop.log-every": 500,
}
SMNIST_SCALED = (
    "Scaled down: 20 000 steps at a learning rate of 4e-3 instead of 200 000 at 4e-4, both "
    "constant, and 16 shrinks instead of 20, which at this pace come to about the published "
    "states; network, batch, data and full length (784) are the paper's."
)
SHORT: Options = {
    "steps": 4000,
    "loop.evaluate-every": 1000,
    "loop.checkpoint-every": 2000,
    "loop.log-every": 200,
}
SHORT_SCALED = (
    "Scaled down: 4000 steps instead of 200 000, at the small preset's learning rate (1e-2, "
    "cosine) instead of 4e-4; network, batch, data and full length (784) are the paper's."
)
SMALL_SCALED = "Scaled down: network, data and number of steps are those of the small preset."

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
            "born as 0.04": Published(13, 92.6),
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
            "born as 0.15": Published(57, 78.2),
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


def _fixed(rank: int, **more: object) -> dict[str, object]:
    """To so many states, whatever the spectrum; `more` are options of the compression."""
    named = {f"compression.{name}": value for name, value in more.items()}
    return {"compression.mode": "fixed", "compression.rank": rank, **named}


COMPARISON_CPU: Options = {**SHORT, "steps": 3000, "optimizer.warmup": 0.01}
"""The rate is at its peak when the first shrink comes, as in the paper, where it is constant."""
COMPARISON_SCALED = SHORT_SCALED.replace("4000", "3000").replace(
    "cosine)", "cosine after 30 steps of warm-up)"
)


def smnist_study(
    name: str,
    question: str,
    variants: tuple[Variant, ...],
    seeds: int = 3,
    options: Options = PAPER,
) -> Study:
    """A comparison on sequential MNIST, LRU."""
    return Study(
        name=name,
        question=question,
        model="lru",
        task="smnist",
        reference="uncompressed",
        options={**RECORDED, "compression.shrinks": 4, **options},
        cpu=COMPARISON_CPU,
        scaled_down=COMPARISON_SCALED,
        seeds=seeds,
        variants=(
            Variant("uncompressed", UNCOMPRESSED),
            *variants,
        ),
    )


def born(rank: int) -> Variant:
    """The model that has so many states from the start."""
    return Variant(f"born at {rank}", {**UNCOMPRESSED, "layer.d-state": rank})


COMPARISONS = (
    smnist_study(
        "selection",
        "Which balanced states must stay: those of the largest singular values, the smallest, or "
        "any? 256 -> 32 in four shrinks.",
        (
            *(Variant(keep, _fixed(32, keep=keep)) for keep in ("largest", "smallest", "random")),
            born(32),
        ),
    ),
    smnist_study(
        "shrinks",
        "In how many shrinks should the state fall from 256 to 32?",
        tuple(Variant(f"R = {k}", _fixed(32, shrinks=k)) for k in (1, 2, 4, 8, 16)),
    ),
    smnist_study(
        "window",
        "When in training should the state fall from 256 to 32? Four shrinks in a tenth of the "
        "steps.",
        tuple(
            Variant(f"after {start:.0%}", _fixed(32, start=start))
            for start in (0.0, 0.1, 0.3, 0.5, 0.8)
        ),
    ),
    smnist_study(
        "pragmatic",
        "How far does cutting a tenth at a time go, taken back once validation suffers?",
        (
            Variant("tolerance 0.02", {"compression.tolerance": 0.02}),
            *(
                Variant(
                    f"a tenth at a time, slack {slack:g}",
                    {
                        "compression.mode": "pragmatic",
                        "compression.shrinks": 30,
                        "compression.window": 0.6,
                        "compression.slack": slack,
                    },
                )
                for slack in (0.0, 0.01)
            ),
        ),
    ),
    smnist_study(
        "modes",
        "At equal final state, what do the form of the reduction, the data and the optimizer's "
        "moments give? 256 -> 16 in four shrinks.",
        (
            *(
                Variant(f"{method}, transport", _fixed(16, method=method))
                for method in ("paper", "real", "optimal", "data")
            ),
            *(
                Variant(f"data, {moments}", _fixed(16, method="data", moments=moments))
                for moments in ("slice", "reset")
            ),
            born(16),
        ),
        options={"compression.multiple": 1},
    ),
    smnist_study(
        "baselines",
        "At equal final state, is shrinking in training better than learning from a teacher, than "
        "a price on the singular values, and than cutting after training?",
        (
            Variant("in training, paper", _fixed(28, method="paper")),
            Variant("in training, data", _fixed(28, method="data")),
            born(28),
            Variant("distilled", {**UNCOMPRESSED, "layer.d-state": 28}, taught_by="uncompressed"),
            Variant("priced", {**UNCOMPRESSED, "regularization.hankel": 1e-3}),
            Variant("priced, cut afterwards", _fixed(28, method="paper"), cut_from="priced"),
            *(
                Variant(f"cut afterwards, {m}", _fixed(28, method=m), cut_from="uncompressed")
                for m in ("paper", "real", "optimal", "data")
            ),
        ),
        options={"compression.multiple": 1},
    ),
    smnist_study(
        "ours",
        "What do data, a budget for all layers and an adaptive schedule add to the paper's method, "
        "at equal final state (2 x 128 -> 32 in all) and at equal wall time?",
        (
            Variant("paper", _fixed(16, method="paper")),
            Variant("data", _fixed(16, method="data")),
            Variant(
                "data, one budget for both layers",
                {"compression.mode": "budget", "compression.rank": 16},
            ),
            Variant(
                "data, adaptive",
                _fixed(
                    16,
                    method="data",
                    shrinks=20,
                    window=0.5,
                    settled=0.1,
                    guard=0.02,
                ),
            ),
            born(16),
        ),
        seeds=5,
        options={"compression.multiple": 1, "network.blocks": 2, "layer.d-state": 128},
    ),
)

SCHEDULES = Study(
    name="schedules",
    question=(
        "How many shrinks in the first tenth of training give the published numbers of states? The "
        "paper tries throughout that tenth; its public code is set to every 2000 steps (R = 10), "
        "but comes to it only where it also evaluates, every 5000 (R = 2)."
    ),
    model="lru",
    task="smnist",
    reference="0.04, R = 10",
    options={
        **PAPER,
        "steps": 21_000,
        "compression.window": 20 / 21,
        "optimizer.learning-rate": 4e-4,
        "optimizer.schedule": "constant",
        "optimizer.ssm-factor": 1.0,
        "loop.evaluate-every": 5000,
        "loop.checkpoint-every": 5000,
        "loop.log-every": 500,
    },
    scaled_down=(
        "The published setting, stopped after the first tenth of its 200 000 steps and 1000 more."
    ),
    seeds=1,
    variants=tuple(
        Variant(
            f"{tau:g}, R = {shrinks}",
            {"compression.tolerance": tau, "compression.shrinks": shrinks},
            published=Published(states),
        )
        for tau, states in ((0.04, 12.7), (0.02, 27.6), (0.01, 46.8))
        for shrinks in (2, 10, 20, 40)
    ),
)

PHASES = Study(
    name="phases",
    question=(
        "How much of what a model that is born small lacks is due to where its eigenvalues begin? "
        "LRU spreads phases over [0, max_phase], of which few states hold little that is slow."
    ),
    model="lru",
    task="smnist",
    reference="born at 13, to 2 pi",
    options={**UNCOMPRESSED, "layer.d-state": 13},
    cpu=TEN_TIMES_FASTER,
    scaled_down=SMNIST_SCALED,
    seeds=2,
    variants=(
        *(
            Variant(
                f"born at 13, to {name}",
                {"layer.max-phase": phase},
                published=Published(13, 92.6),
            )
            for name, phase in (("2 pi", 6.283185307179586), ("0.6", 0.6), ("0.3", 0.3))
        ),
        Variant(
            "shrunk at 0.04, to 0.6",
            {
                **PAPER,
                "compression.mode": "tolerance",
                "compression.tolerance": 0.04,
                "layer.d-state": 256,
                "layer.max-phase": 0.6,
            },
            published=Published(12.7, 95.9),
        ),
        Variant("uncompressed, to 0.6", {"layer.d-state": 256, "layer.max-phase": 0.6}),
    ),
)

LATE = Study(
    name="late",
    question=(
        "Weighed by data, states that a task is not learned with yet seem to do little. Where it "
        "is learned after the first tenth of training, how low must the tolerance be, and does it "
        "help to wait?"
    ),
    model="s5",
    task="pathfinder",
    reference="uncompressed",
    scaled_down=SMALL_SCALED,
    variants=(
        Variant("uncompressed", UNCOMPRESSED),
        Variant("paper, 0.05", {**PAPER, "compression.tolerance": 0.05}),
        *(Variant(f"data, {tau:g}", {"compression.tolerance": tau}) for tau in (0.1, 0.02, 0.005)),
        Variant(
            "data, 0.02, in the second half",
            {"compression.tolerance": 0.02, "compression.start": 0.5},
        ),
    ),
)

CHARLM_CUT = Study(
    name="charlm-cut",
    question=(
        "Does a Mamba of 64 states that is cut to 16 at a tenth of training end within 0.5 % of "
        "the loss of one that is never cut? And one that is cut when it is done?"
    ),
    model="mamba",
    task="charlm",
    reference="uncompressed",
    cpu={"steps": 1000},
    scaled_down=(
        "Scaled down: 1000 steps, two layers of d_model 64, sequences of 128 characters (the small "
        "preset)."
    ),
    variants=(
        Variant("uncompressed", UNCOMPRESSED),
        Variant("cut to 16", _fixed(16, shrinks=1)),
        Variant("cut afterwards", _fixed(16), cut_from="uncompressed"),
    ),
)

STABILITY = Study(
    name="stability",
    question=(
        "Are the Hankel singular values as steady in training as in-training compression needs? "
        "They are followed from one step to another, and their moves held against Weyl's bound "
        "(lemma 3.1)."
    ),
    model="lru",
    task="smnist",
    reference="lru",
    options={**RECORDED, **UNCOMPRESSED, "loop.keep-systems": True},
    cpu={**SHORT, "loop.evaluate-every": 100},
    scaled_down=(
        "Scaled down: 4000 steps, spectra every 100; network, batch, data and full length are the "
        "paper's."
    ),
    seeds=2,
    variants=tuple(Variant(model, {}, model=model) for model in ("lru", "s5", "mamba")),
)

STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        study.name: study
        for study in (*ORDERINGS, SCHEDULES, PHASES, *COMPARISONS, LATE, CHARLM_CUT, STABILITY)
    }
)
