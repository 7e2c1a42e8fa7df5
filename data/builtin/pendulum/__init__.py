"""Pendulum: the angle of a pendulum in noisy pictures at irregular times.

Becker et al., ICML 2019; at irregular times: Schirmer et al., ICML 2022 (CRU); with state-space
models: Smith, Warrington, Linderman, ICLR 2023 (S5).
"""

from dataclasses import dataclass

import numpy as np

from ...checks import check_at_least
from ...store.places import Places
from ...task import Split, Task


@dataclass(frozen=True)
class PendulumConfig:
    """The number of sequences, and their length."""

    train: int = 2_000
    """Sequences to simulate for training."""
    validation: int = 1_000
    """Sequences to simulate for validation."""
    test: int = 1_000
    """Sequences to simulate for testing."""
    samples: int = 50
    """Pictures of each sequence, at this many of 100 instants."""
    seed: int = 0
    """Seed of the motion, the instants and the noise."""

    def __post_init__(self):
        check_at_least(self, train=1, validation=1, test=1)
        if not 2 <= self.samples <= 100:
            raise ValueError(f"samples must be between 2 and 100, got {self.samples}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")


def load_pendulum(config: PendulumConfig, places: Places) -> Task:
    """Pendulum as a task: a picture of 24x24 pixels in [0, 1] at each step; the sine and cosine of
    the angle at each step, and the time before it."""
    from ...store.files import prepare_without_files  # 0.5 s to import
    from .builder import Pendulum
    from .simulation import SIDE

    prepared = prepare_without_files(
        Pendulum,
        config,
        f"l{config.samples}_s{config.seed}_n{config.train}_{config.validation}_{config.test}",
        "for the task pendulum, which is simulated",
        places,
    )
    splits = {
        name: Split(
            arrays["images"].reshape(len(arrays["images"]), config.samples, SIDE**2),
            arrays["targets"],
            scale=1 / 255,
            intervals=arrays["intervals"],
        )
        for name, arrays in prepared.splits.items()
    }
    mean = splits["train"].labels.mean(axis=(0, 1))
    return Task(
        name="pendulum",
        kind="regression",
        length=config.samples,
        input_kind="real",
        input_size=SIDE**2,
        frame=(SIDE, SIDE),
        splits=splits,
        baselines={"mean": float(np.mean((splits["test"].labels - mean) ** 2))},
        notes=tuple(prepared.metadata["notes"]),
    )
