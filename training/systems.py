"""The linear systems of a model's layers on disk, for analyses of how they move."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.precision import double_lti
from zoo import DiagonalLTI
from zoo.layer import AbstractLinearSSM

from .metrics import write_atomically
from .network import layers_of


def save_systems(path: Path, model: Any) -> None:
    """Write the systems of all time-invariant layers, in order, in double precision."""
    arrays = {}
    for k, layer in enumerate(layers_of(model)):
        if isinstance(layer, AbstractLinearSSM):
            lti = double_lti(layer)
            arrays |= {f"{k}.{name}": getattr(lti, name) for name in ("log_lam", "B", "C", "D")}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [buffer.getvalue()])


def read_systems(folder: Path) -> Iterator[tuple[int, dict[int, DiagonalLTI]]]:
    """(step, systems by the number of their layer) for every file in `folder`, in order."""
    for path in sorted(folder.glob("*.npz"), key=lambda path: int(path.stem)):
        with np.load(path) as arrays:
            numbers = sorted({int(name.split(".")[0]) for name in arrays.files})
            yield (
                int(path.stem),
                {
                    k: DiagonalLTI(*(arrays[f"{k}.{name}"] for name in ("log_lam", "B", "C", "D")))
                    for k in numbers
                },
            )
