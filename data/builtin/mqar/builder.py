"""The tensorflow-datasets builder of multi-query associative recall."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ...store.builder import AbstractTaskBuilder, Records, tensor
from .sequences import draw

SPLITS = ("train", "validation", "test")


class MQAR(AbstractTaskBuilder):
    """Keys with values, and the keys once more. Settings: a `MQARConfig`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    DESCRIPTION = (
        "Sequences that begin with pairs of keys and values; where a key comes again, its value "
        "is asked for."
    )
    HOMEPAGE = "https://github.com/HazyResearch/zoology"
    CITATION = (
        "Arora, Eyuboglu, Timalsina, Johnson, Poli, Zou, Rudra, Re: Zoology: measuring and "
        "improving recall in efficient language models. ICLR 2024."
    )

    @property
    def work(self) -> str:
        return "writing pairs and queries"

    def features(self) -> dict:
        length = self.recipe.settings.length
        return {"tokens": tensor((length,), np.int32), "values": tensor((length,), np.int32)}

    def records(self) -> dict[str, Records]:
        return {
            split: Records(getattr(self.recipe.settings, split), self._drawn(stream, split))
            for stream, split in enumerate(SPLITS)
        }

    def _drawn(self, stream: int, split: str) -> Iterator[dict]:
        config = self.recipe.settings
        fewest = config.fewest if split == "train" else None
        drawn = draw(
            getattr(config, split),
            (fewest or config.pairs, config.pairs),
            config.length,
            config.vocabulary,
            config.power,
            np.random.default_rng([config.seed, stream]),
        )
        for tokens, values in zip(*drawn, strict=True):
            yield {"tokens": tokens, "values": values}
