"""Comparisons on sequential MNIST: how, how often and when states are cut."""

from .options import PAPER, RECORDED, SHORT, SHORT_SCALED, UNCOMPRESSED, fixed
from .study import Options, Study, Variant

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


def from_the_start(rank: int) -> Variant:
    """The model that has so many states from the start."""
    return Variant(f"{rank} from the start", {**UNCOMPRESSED, "layer.d-state": rank})


COMPARISONS = (
    smnist_study(
        "selection",
        "Which balanced states should stay: those with the largest Hankel singular values, those "
        "with the smallest, or a random choice? 256 -> 32 in four shrinks.",
        (
            *(Variant(keep, fixed(32, keep=keep)) for keep in ("largest", "smallest", "random")),
            from_the_start(32),
        ),
    ),
    smnist_study(
        "shrinks",
        "In how many shrinks should the number of states fall from 256 to 32?",
        tuple(Variant(f"R = {k}", fixed(32, shrinks=k)) for k in (1, 2, 4, 8, 16)),
    ),
    smnist_study(
        "window",
        "When in training should the number of states fall from 256 to 32? Four shrinks within a "
        "tenth of the steps.",
        tuple(
            Variant(f"after {start:.0%}", fixed(32, start=start))
            for start in (0.0, 0.1, 0.3, 0.5, 0.8)
        ),
    ),
    smnist_study(
        "pragmatic",
        "How small does a model become if each shrink drops a tenth of its states, and the last "
        "shrink is taken back once validation gets worse?",
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
        "At the same final size, how much do the form of the reduction, the data and the "
        "optimizer's moments matter? 256 -> 16 in four shrinks.",
        (
            *(
                Variant(f"{method}, transport", fixed(16, method=method))
                for method in ("paper", "real", "optimal", "data")
            ),
            *(
                Variant(f"data, {moments}", fixed(16, method="data", moments=moments))
                for moments in ("slice", "reset")
            ),
            from_the_start(16),
        ),
        options={"compression.multiple": 1},
    ),
    smnist_study(
        "baselines",
        "At the same final size, is shrinking in training better than distillation, than a "
        "penalty on the Hankel singular values, and than a cut after training?",
        (
            Variant("in training, paper", fixed(28, method="paper")),
            Variant("in training, data", fixed(28, method="data")),
            from_the_start(28),
            Variant("distilled", {**UNCOMPRESSED, "layer.d-state": 28}, taught_by="uncompressed"),
            Variant("priced", {**UNCOMPRESSED, "regularization.hankel": 1e-3}),
            Variant("priced, cut afterwards", fixed(28, method="paper"), cut_from="priced"),
            *(
                Variant(f"cut afterwards, {m}", fixed(28, method=m), cut_from="uncompressed")
                for m in ("paper", "real", "optimal", "data")
            ),
        ),
        options={"compression.multiple": 1},
    ),
    smnist_study(
        "ours",
        "What do data, one budget for all layers and an adaptive schedule add to the paper's "
        "method, at the same final size (2 x 128 -> 32 in all) and in the same wall time?",
        (
            Variant("paper", fixed(16, method="paper")),
            Variant("data", fixed(16, method="data")),
            Variant(
                "data, one budget for both layers",
                {"compression.mode": "budget", "compression.rank": 16},
            ),
            Variant(
                "data, adaptive",
                fixed(
                    16,
                    method="data",
                    shrinks=20,
                    window=0.5,
                    settled=0.1,
                    guard=0.02,
                ),
            ),
            from_the_start(16),
        ),
        seeds=5,
        options={"compression.multiple": 1, "network.blocks": 2, "layer.d-state": 128},
    ),
)
