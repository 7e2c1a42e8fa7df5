"""The official Pathfinder folder of Long Range Arena.

`<difficulty>/metadata/<batch>.npy` is plain text despite its name, a line per picture: folder, file
name, index, label and the settings of the generator. The pictures are
`<difficulty>/imgs/<batch>/sample_<n>.png`.
"""

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

PUBLISHED = 200_000
"""Pictures of one difficulty at one resolution, the empty ones included."""
_RESOLUTIONS = (32, 64, 128)
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


def release_folder(resolution: int, contour_length: int) -> str:
    """Where in the release these pictures are. ValueError for what has not been published."""
    if resolution not in _RESOLUTIONS:
        raise ValueError(
            f"resolution must be 32, 64 or 128 with the official pictures, got {resolution}"
        )
    if contour_length not in _DIFFICULTIES:
        raise ValueError(
            f"contour_length must be 6, 9 or 14 with the official pictures, got {contour_length}"
        )
    return f"pathfinder{resolution}/{_DIFFICULTIES[contour_length]}"


def find_metadata(root: Path, resolution: int, contour_length: int) -> dict[str, Path]:
    """The files that list the pictures, below `root`, which is `pathfinder<resolution>` or its
    parent.

    Raises ValueError for what has not been published, FileNotFoundError when there are none.
    """
    folder = release_folder(resolution, contour_length)
    difficulty = folder.split("/")[1]
    for place in (root / folder, root / difficulty):
        if found := sorted((place / "metadata").glob("*.npy")):
            return {path.name: path for path in found}
    raise FileNotFoundError(
        f"no Pathfinder metadata in {root}: data_dir must be the folder pathfinder{resolution} of "
        f"the Long Range Arena release, or its parent, with {difficulty}/metadata/*.npy and "
        f"{difficulty}/imgs/"
    )


def list_samples(metadata: Collection[Path]) -> tuple[list[Sample], list[Path]]:
    """All pictures, and those that are left out since they are empty in the release. Raises
    ValueError for a damaged line, FileNotFoundError for a missing picture.
    """
    samples, skipped = [], []
    for path in metadata:
        difficulty = path.parent.parent
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            fields = line.split()
            if len(fields) < 4 or fields[3] not in ("0", "1"):
                raise ValueError(
                    f"line {number} of {path} must hold a folder, a file, an index and a label of "
                    f"0 or 1, got {line!r}"
                )
            picture = difficulty / fields[0] / fields[1]
            if not picture.exists():
                raise FileNotFoundError(
                    f"{picture} is missing, which line {number} of {path} names: unpack the "
                    f"release again"
                )
            known = (difficulty.name, fields[0], fields[1]) in _KNOWN_EMPTY
            if known and picture.stat().st_size == 0:
                skipped.append(picture)
            else:
                samples.append(Sample(picture, int(fields[3])))
    if len(samples) < 10:
        raise ValueError(
            f"{', '.join(map(str, metadata))} list {len(samples)} pictures, too few for a split"
        )
    return samples, skipped


def read_picture(path: Path, side: int) -> UInt8[np.ndarray, "side side"]:
    """One picture. Raises ValueError naming the file when it cannot be decoded or has another
    size."""
    from PIL import Image  # needed for the official pictures alone

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size tells below
            with Image.open(path) as picture:
                width, height = picture.size
                if (width, height) == (side, side):
                    return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as a picture ({error}): unpack the release again"
        ) from error
    raise ValueError(f"{path} must have {side}x{side} pixels, got {height}x{width}")
