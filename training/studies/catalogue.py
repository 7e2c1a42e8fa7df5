"""The studies: the paper's claims, and what goes beyond them, as lists of runs.

Published figures are those of the paper's tables for LRU (Chahine et al., ICLR 2026).
"""

from collections.abc import Mapping
from types import MappingProxyType

from .study import Published, Study, Variant

UNCOMPRESSED = {"compression.mode": "none"}


def _ordering(
    tolerances: Mapping[float, Published], born: Mapping[float, Published], full: Published
) -> tuple[Variant, ...]:
    """Uncompressed; compressed at each tolerance; born at the final state of each."""
    compressed = [
        Variant(f"tolerance {tau:g}", {"compression.tolerance": tau}, published=published)
        for tau, published in tolerances.items()
    ]
    small = [
        Variant(
            f"born at the state of {tau:g}",
            UNCOMPRESSED,
            born_from=f"tolerance {tau:g}",
            published=born.get(tau, Published()),
        )
        for tau in tolerances
    ]
    return (Variant("uncompressed", UNCOMPRESSED, published=full), *compressed, *small)


SMNIST = Study(
    name="smnist",
    question=(
        "Does a model that starts large and shrinks end better than one that is born at its final "
        "state, and near the one that stays large? Sequential MNIST, LRU, the paper's form."
    ),
    model="lru",
    task="smnist",
    reference="uncompressed",
    options={"compression.method": "paper", "compression.multiple": 1},
    cpu={
        "steps": 10_000,
        "optimizer.learning-rate": 4e-3,
        "optimizer.ssm-factor": 0.5,
        "loop.evaluate-every": 1000,
        "loop.checkpoint-every": 2000,
        "loop.log-every": 200,
    },
    scaled_down=(
        "Scaled down: 10 000 steps instead of 200 000 at a learning rate of 4e-3 instead of 4e-4; "
        "network, batch, data and full length (784) are the paper's."
    ),
    variants=_ordering(
        {
            0.01: Published(46.8, 96.9),
            0.02: Published(27.6, 96.9),
            0.04: Published(12.7, 95.9),
        },
        {0.04: Published(13, 92.6)},
        Published(256, 97.3),
    ),
)

SMNIST_SHORT = Study(
    name="smnist-short",
    question=(
        "What do 4000 steps on sequential MNIST give at tolerance 0.02, beside the model that "
        "stays large and one that is born at the final state? LRU, one block, H = 8, N = 256, the "
        "small preset as it is."
    ),
    model="lru",
    task="smnist",
    reference="uncompressed",
    scaled_down=(
        "Scaled down: 4000 steps instead of 200 000, at a learning rate of 1e-2 instead of 4e-4; "
        "network, batch, data and full length (784) are the paper's."
    ),
    variants=_ordering({0.02: Published(27.6, 96.9)}, {}, Published(256, 97.3)),
)

STUDIES: Mapping[str, Study] = MappingProxyType(
    {study.name: study for study in (SMNIST, SMNIST_SHORT)}
)
