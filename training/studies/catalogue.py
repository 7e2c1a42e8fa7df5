"""The studies: the paper's claims, and what goes beyond them, as lists of runs.

Published figures are those of the paper's tables for LRU (Chahine et al., ICLR 2026).
"""

from collections.abc import Mapping
from types import MappingProxyType

from .attention import ATTENTION
from .comparisons import COMPARISONS
from .options import (
    BY_TOLERANCE,
    PAPER,
    RECORDED,
    SHORT,
    SMALL_SCALED,
    SMNIST_SCALED,
    TEN_TIMES_FASTER,
    UNCOMPRESSED,
    fixed,
)
from .orderings import ORDERINGS
from .study import Published, Study, Variant
from .suite import AUTO, PROTOCOL, RIVAL_STUDY

SCHEDULES = Study(
    name="schedules",
    question=(
        "How many shrinks in the first tenth of training give the published numbers of states? "
        "The paper shrinks throughout that tenth. Its public code is set to shrink every 2000 "
        "steps (R = 10), but shrinks only at steps where it also evaluates, every 5000 (R = 2)."
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
        "Why is a model that is small from the start worse? How much is due to its initial "
        "eigenvalues? LRU draws their phases from [0, max_phase]. Among a few of them, hardly any "
        "is slow."
    ),
    model="lru",
    task="smnist",
    reference="13 from the start, to 2 pi",
    options={**UNCOMPRESSED, "layer.d-state": 13},
    cpu=TEN_TIMES_FASTER,
    scaled_down=SMNIST_SCALED,
    seeds=2,
    variants=(
        *(
            Variant(
                f"13 from the start, to {name}",
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
        "Data give little weight to states that the model does not use yet. If a task is learned "
        "after the first tenth of training, how low must the tolerance be? Does a later cut help?"
    ),
    model="s5",
    task="pathfinder",
    reference="uncompressed",
    scaled_down=SMALL_SCALED,
    variants=(
        Variant("uncompressed", UNCOMPRESSED),
        Variant("paper, 0.05", {**PAPER, "compression.tolerance": 0.05}),
        *(
            Variant(f"data, {tau:g}", {**BY_TOLERANCE, "compression.tolerance": tau})
            for tau in (0.1, 0.02, 0.005)
        ),
        Variant(
            "data, 0.02, in the second half",
            {**BY_TOLERANCE, "compression.tolerance": 0.02, "compression.start": 0.5},
        ),
    ),
)

CHARLM_CUT = Study(
    name="charlm-cut",
    question=(
        "A Mamba of 64 states is cut to 16 after a tenth of training. Does it end within 0.5 % of "
        "the loss of a Mamba that is never cut? Does one that is cut after training?"
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
        Variant("cut to 16", fixed(16, shrinks=1)),
        Variant("cut afterwards", fixed(16), cut_from="uncompressed"),
    ),
)

STABILITY = Study(
    name="stability",
    question=(
        "Are the Hankel singular values steady enough in training for in-training compression? "
        "They are followed from step to step, and their changes are compared with Weyl's bound "
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
        for study in (
            *ORDERINGS,
            SCHEDULES,
            PHASES,
            *COMPARISONS,
            LATE,
            CHARLM_CUT,
            STABILITY,
            *ATTENTION,
            AUTO,
            RIVAL_STUDY,
            PROTOCOL,
        )
    }
)
