"""Systems of a model's layers on disk, for analyses of their Hankel operators over time."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from compress import family_of
from compress.analysis.tracking import System
from compress.model.layers import layers_of, path_name
from compress.selective.operator import SampledStates
from zoo import DiagonalLTI

from ..reporting.events import write_atomically
from .reduction import Reduction

ARRAYS = {DiagonalLTI: ("log_lam", "B", "C", "D"), SampledStates: ("H", "M")}
"""What is written of a system, by its class."""


def save_systems(
    folder: Path, step: int, model: Any, norm_state: eqx.nn.State, reduction: Reduction
) -> None:
    """Write the systems of all layers, in order, to `folder`/systems, in double precision.

    Those of selective layers are states on the calibration data of `reduction`.
    """
    layers = layers_of(model)
    needs_data = any(family_of(layer).needs_data for _, layer in layers)
    seen = reduction.seen(model, norm_state) if needs_data else {}
    arrays = {}
    for k, (keys, layer) in enumerate(layers):
        made = family_of(layer).system
        if made is None:
            raise ValueError(f"`model` must have layers with systems, got a {type(layer).__name__}")
        system = made(layer, seen.get(path_name(keys)))
        arrays |= {f"{k}.{field}": getattr(system, field) for field in ARRAYS[type(system)]}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path = folder / "systems" / f"{step}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [buffer.getvalue()])


def read_systems(folder: Path) -> Iterator[tuple[int, dict[int, System]]]:
    """(step, systems by the number of their layer) for every file in `folder`, in order."""
    for path in sorted(folder.glob("*.npz"), key=lambda path: int(path.stem)):
        with np.load(path) as arrays:
            numbers = sorted({int(name.split(".")[0]) for name in arrays.files})
            yield int(path.stem), {k: _read(arrays, k) for k in numbers}


def _read(arrays: Any, k: int) -> System:
    (kind,) = (kind for kind, names in ARRAYS.items() if f"{k}.{names[0]}" in arrays)
    return kind(*(arrays[f"{k}.{name}"] for name in ARRAYS[kind]))
