"""Pendulum: at what angle does it hang, in noisy pictures taken at irregular times?

Becker et al., ICML 2019; at irregular times: Schirmer et al., ICML 2022 (CRU); with state-space
models: Smith, Warrington, Linderman, ICLR 2023 (S5).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .store import data_cache
from .task import Progress, Split, Task


@dataclass(frozen=True)
class PendulumConfig:
    """How many sequences, and how long."""

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
        for name in ("train", "validation", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 2 <= self.samples <= 100:
            raise ValueError(f"samples must be between 2 and 100, got {self.samples}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")


def load_pendulum(
    config: PendulumConfig,
    *,
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Task:
    """Pendulum as a task: a picture of 24x24 pixels in [0, 1] at each step; the sine and cosine of
    the angle at each step, and the time before it."""
    from .builder import Recipe, prepare  # 0.5 s to import
    from .pendulum_builder import Pendulum
    from .pendulum_simulation import SIDE

    if data_dir is not None:
        raise ValueError(
            f"data_dir must be left out for the task pendulum, which is simulated; got {data_dir}"
        )
    name = f"l{config.samples}_s{config.seed}_n{config.train}_{config.validation}_{config.test}"
    recipe = Recipe(name=name, settings=config, progress=progress)
    prepared = prepare(Pendulum, recipe, data_cache(cache_dir))
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
