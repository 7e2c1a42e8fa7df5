"""The tensorflow-datasets builder of the pendulum."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ...store.builder import AbstractTaskBuilder, Records, tensor
from .simulation import SIDE, observe, simulate

SPLITS = ("train", "validation", "test")


class Pendulum(AbstractTaskBuilder):
    """Pictures of pendulums and their angles. Settings: a `PendulumConfig`."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "First version.",
        "2.0.0": "Simulated in chunks with random numbers of their own.",
    }
    DESCRIPTION = (
        "Noisy pictures of a pendulum at irregular times; the targets are the sine and cosine of "
        "its angle at each of them."
    )
    HOMEPAGE = "https://github.com/boschresearch/Continuous-Recurrent-Units"
    CITATION = (
        "Becker, Pandya, Gebhardt, Zhao, Taylor, Neumann: Recurrent Kalman networks. ICML 2019. "
        "Schirmer, Eltayeb, Lessmann, Rudolph: Modeling irregular time series with continuous "
        "recurrent units. ICML 2022. Smith, Warrington, Linderman: Simplified state space layers "
        "for sequence modeling. ICLR 2023."
    )

    @property
    def work(self) -> str:
        return "writing pictures of pendulums"

    def features(self) -> dict:
        samples = self.recipe.settings.samples
        return {
            "images": tensor((samples, SIDE, SIDE), np.uint8),
            "targets": tensor((samples, 2), np.float32),
            "intervals": tensor((samples,), np.float32),
        }

    def records(self) -> dict[str, Records]:
        return {
            split: Records(getattr(self.recipe.settings, split), self._simulated(stream, split))
            for stream, split in enumerate(SPLITS)
        }

    def _simulated(self, stream: int, split: str) -> Iterator[dict]:
        config = self.recipe.settings
        angles, _ = simulate(getattr(config, split), config.seed, stream)
        rng = np.random.default_rng([config.seed, stream])
        for images, targets, intervals in zip(*observe(angles, config.samples, rng), strict=True):
            yield {"images": images, "targets": targets, "intervals": intervals}
