"""Raw files in a folder: found, unpacked, and split for validation."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int


def find_file(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of `names` in `folder`; FileNotFoundError saying what is wanted when there is
    none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has no {names[0]} ({what})")


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked if it is gzipped; ValueError naming it when it is damaged."""
    raw = path.read_bytes()
    try:
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip data is damaged or cut short ({error})") from error


def hold_out(
    count: int, validation: int, seed: int
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " validation"]]:
    """Which of `count` training samples stay for training, and which are for validation.

    ValueError when none would stay.
    """
    if validation >= count:
        raise ValueError(
            f"validation must leave some of the {count} training samples, got {validation}"
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[validation:]), np.sort(order[:validation])
