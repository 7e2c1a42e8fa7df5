"""The official Pathfinder folder of Long Range Arena.

`<difficulty>/metadata/<batch>.npy` is plain text despite its name, a line per picture: folder, file
name, index, label and the settings of the generator. The pictures are
`<difficulty>/imgs/<batch>/sample_<n>.png`.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

_DIFFICULTIES = {
    6: "curv_baseline",
    9: "curv_contour_length_9",
    14: "curv_contour_length_14",
}
_KNOWN_EMPTY = {("curv_baseline", "imgs/0", "sample_172.png")}


@dataclass(frozen=True)
class Sample:
    path: Path
    label: int


@dataclass(frozen=True)
class OfficialFolder:
    """One difficulty at one resolution, below `root`, which is `pathfinder<resolution>` or its
    parent.

    Raises ValueError for a contour length that was not published, FileNotFoundError when there is
    no such folder.
    """

    root: Path
    resolution: int
    contour_length: int

    def __post_init__(self):
        if self.contour_length not in _DIFFICULTIES:
            raise ValueError(
                f"contour_length must be 6, 9 or 14 with the official pictures, got "
                f"{self.contour_length}"
            )
        if not self._metadata:
            raise FileNotFoundError(
                f"no Pathfinder metadata in {self.root}: data_dir must be the folder "
                f"pathfinder{self.resolution} of the Long Range Arena release, or its parent, with "
                f"{self.difficulty}/metadata/*.npy and {self.difficulty}/imgs/"
            )

    @property
    def difficulty(self) -> str:
        return _DIFFICULTIES[self.contour_length]

    @cached_property
    def _metadata(self) -> list[Path]:
        for base in (self.root / f"pathfinder{self.resolution}", self.root):
            if found := sorted((base / self.difficulty / "metadata").glob("*.npy")):
                return found
        return []

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the folder or its metadata does."""
        text = "\n".join(
            f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}"
            for path in self._metadata
        )
        return sha256(text.encode()).hexdigest()[:12]

    def samples(self) -> tuple[list[Sample], list[Path]]:
        """All pictures, and those left out because the release is known to have them empty."""
        samples, skipped = [], []
        for metadata in self._metadata:
            for number, line in enumerate(metadata.read_text("utf-8").splitlines(), 1):
                fields = line.split()
                if len(fields) < 4 or fields[3] not in ("0", "1"):
                    raise ValueError(
                        f"line {number} of {metadata} must hold a folder, a file, an index and a "
                        f"label of 0 or 1, got {line!r}"
                    )
                path = metadata.parent.parent / fields[0] / fields[1]
                if not path.exists():
                    raise FileNotFoundError(
                        f"{path} is missing, which line {number} of {metadata} names: unpack the "
                        f"release again"
                    )
                known = (self.difficulty, fields[0], fields[1]) in _KNOWN_EMPTY
                if known and path.stat().st_size == 0:
                    skipped.append(path)
                else:
                    samples.append(Sample(path, int(fields[3])))
        if len(samples) < 10:
            raise ValueError(f"{self.root} holds {len(samples)} pictures, too few for a split")
        return samples, skipped

    def read(self, path: Path) -> UInt8[np.ndarray, "side side"]:
        """One picture. Raises ValueError naming the file when it cannot be decoded or has another
        size."""
        from PIL import Image  # needed for the official pictures alone

        try:
            with Image.open(path) as picture:
                image = np.asarray(picture.convert("L"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{path} cannot be read as a picture ({error}): unpack the release again"
            ) from error
        if image.shape != (self.resolution, self.resolution):
            raise ValueError(
                f"{path} must have {self.resolution}x{self.resolution} pixels, got "
                f"{image.shape[0]}x{image.shape[1]}"
            )
        return image
