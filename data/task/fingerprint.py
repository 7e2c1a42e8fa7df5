"""The fingerprint of data."""

from hashlib import sha256
from typing import Any

import numpy as np

from ..typing import checked
from .split import PARTS, Split
from .task import Task

MOST_BYTES = 2**26
"""Most bytes that are read of an array; of a larger one, rows at equal distances are read."""


@checked
def fingerprint(task: Task) -> str:
    """The SHA-256 of the arrays of all splits and of the kind of task, in hexadecimal.

    Of arrays of more than 64 MB rows at equal distances are taken, the first and the last among
    them, so that it costs no more than a fraction of a second.
    """
    digest = sha256(repr((task.kind, task.input_kind, task.input_size, task.outputs)).encode())
    for name in sorted(task.splits):
        _add(digest, name, task.splits[name])
    return digest.hexdigest()


def _add(digest: Any, name: str, split: Split) -> None:
    for part in PARTS:
        array = getattr(split, part)
        if array is None:
            continue
        digest.update(f"{name}.{part} {array.dtype.str} {array.shape}".encode())
        row_bytes = max(1, array.nbytes // max(1, len(array)))
        most = max(2, MOST_BYTES // row_bytes)
        rows = slice(None)
        if len(array) > most:
            rows = np.linspace(0, len(array) - 1, most).astype(np.int64)
        digest.update(np.ascontiguousarray(array[rows]))
    for part in ("offset", "scale"):
        digest.update(np.asarray(getattr(split, part), np.float64).tobytes())
