"""The IDX files in which MNIST is distributed (http://yann.lecun.com/exdb/mnist)."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from .raw import read_bytes


def read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The array of bytes in an IDX file, plain or gzipped, that has so many dimensions.

    ValueError, naming the file, for one that is damaged, cut short or of another kind.
    """
    raw = read_bytes(path)
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if raw[:4] != magic:
        raise ValueError(
            f"{path} must begin with {magic.hex()} (IDX, unsigned bytes, {dimensions} "
            f"dimensions), got {raw[:4].hex() or 'nothing'}"
        )
    if len(raw) < header:
        raise ValueError(f"{path} must have a header of {header} bytes, got {len(raw)} bytes")
    shape = tuple(np.frombuffer(raw, ">u4", dimensions, offset=4).astype(int).tolist())
    if len(raw) - header != math.prod(shape):
        raise ValueError(
            f"{path} must hold as many bytes as its header says, {shape}, got {len(raw) - header}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
