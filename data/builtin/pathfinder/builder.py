"""The tensorflow-datasets builder of Pathfinder: pictures made here, or the official ones."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ...store.builder import AbstractTaskBuilder, Records, tensor
from ...store.workers import chunks_of, draw_in_parallel
from .geometry import GEOMETRIES
from .job import PathfinderJob
from .official import PUBLISHED, Sample, list_samples, read_picture
from .pictures import Acceptance, estimate_acceptance

SPLITS = ("train", "validation", "test")


class Pathfinder(AbstractTaskBuilder):
    """Pictures with two discs and dashed contours; label 1: one contour connects the discs.

    Settings: a `PathfinderConfig`; source: `find_metadata` of the official folder, or None to draw.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "First version.",
        "2.0.0": "Pictures stored as bytes, in the order in which they are drawn.",
    }
    DESCRIPTION = "Do the two discs sit on the ends of one dashed contour?"
    HOMEPAGE = "https://github.com/google-research/long-range-arena"
    CITATION = (
        "Linsley, Kim, Veerabadran, Windolf, Serre: Learning long-range spatial dependencies with "
        "horizontal gated recurrent units. NeurIPS 2018. Tay et al.: Long Range Arena. ICLR 2021."
    )

    @property
    def work(self) -> str:
        return f"{'drawing' if self.recipe.source is None else 'reading'} Pathfinder pictures"

    def features(self) -> dict:
        side = self.recipe.settings.resolution
        features = {"image": tensor((side, side, 1), np.uint8), "label": tensor((), np.int32)}
        if self.recipe.source is None:
            features["discs"] = tensor((2, 2), np.uint8)
        return features

    def records(self) -> dict[str, Records]:
        config, metadata = self.recipe.settings, self.recipe.source
        if metadata is None:
            acceptance = estimate_acceptance(
                GEOMETRIES[config.resolution], config.contour_length, config.seed
            )
            return {
                split: Records(getattr(config, split), self._drawn(split, acceptance))
                for split in SPLITS
            }
        samples, skipped = list_samples(metadata.values())
        for path in skipped:
            self.add_note(f"skipped {path}, which is empty in the release")
        self.compare({"official": PUBLISHED}, {"official": len(samples) + len(skipped)})
        order = np.random.default_rng(config.seed).permutation(len(samples))
        bounds = [8 * len(samples) // 10, 9 * len(samples) // 10]
        return {
            split: Records(len(rows), self._read([samples[i] for i in sorted(rows)]))
            for split, rows in zip(SPLITS, np.split(order, bounds), strict=True)
        }

    def _drawn(self, split: str, acceptance: Acceptance) -> Iterator[dict]:
        config = self.recipe.settings
        job = PathfinderJob(
            config.resolution,
            config.contour_length,
            config.seed,
            acceptance,
            stream=SPLITS.index(split),
        )
        chunks = chunks_of(getattr(config, split), job.chunk)
        for pictures in draw_in_parallel(job, chunks, config.workers):
            for image, label, discs in zip(*pictures, strict=True):
                yield {"image": image[..., None], "label": label, "discs": discs}

    def _read(self, samples: list[Sample]) -> Iterator[dict]:
        for sample in samples:
            image = read_picture(sample.path, self.recipe.settings.resolution)
            yield {"image": image[..., None], "label": np.int32(sample.label)}
