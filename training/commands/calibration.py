"""Recordings of a large model's layers on a text, kept in files until the model has been cut. An
interrupted run continues from the recordings in these files.
"""

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from compress import AbstractMethod, AbstractSpectrum, Data
from compress.model.layers import layers_of, path_name
from compress.model.record import LayerData
from compress.model.record_blocks import record_blocks
from compress.plans import LayerPlan
from data.task import Progress
from zoo import AbstractSSM
from zoo.network.language_model import LanguageModel

from ..reporting.events import write_json
from ..run.memory import give_back_freed_memory

AT_ONCE = 2
"""Sequences that run through the model at the same time."""

LAYERS_AT_ONCE = 2
"""Layers that are weighed at the same time."""


@dataclass(frozen=True)
class Kept:
    """A float32 array in a file, in memory only while NumPy uses it."""

    file: Path
    shape: tuple[int, ...]

    dtype: ClassVar[Any] = np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        count = int(np.prod(self.shape))
        array = np.fromfile(self.file, np.float32, count).reshape(self.shape)
        return array if dtype is None else array.astype(dtype, copy=False)


class Recordings:
    """Inputs of all layers, and gradients by their outputs, in the files of `folder`.

    `batch` are the sequences. Existing recordings of the same model and sequences are reused.
    """

    def __init__(self, folder: Path, model: LanguageModel, batch: Int[np.ndarray, "k L"]):
        self._folder, self._model, self._batch = folder, model, batch
        self._paths = [path_name(keys) for keys, _ in layers_of(model)]
        self._state = folder / "recorded.json"
        self._of = _fingerprint(model, batch)
        self._row = (batch.shape[1], model.d_model)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def done(self) -> int:
        """Sequences that have been recorded."""
        try:
            told = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return 0
        return told["done"] if told.get("of") == self._of else 0

    def complete(self, progress: Progress) -> None:
        """Record the sequences that are missing."""
        count, done = len(self._batch), self.done
        keys = jax.random.split(jax.random.key(0), count)
        for first in range(done, count, AT_ONCE):
            rows = np.minimum(np.arange(first, first + AT_ONCE), count - 1)  # of one shape
            own = min(AT_ONCE, count - first)
            records = record_blocks(self._model, self._batch[rows], keys[rows])
            for k, record in enumerate(records):
                self._append(k, "inputs", record.inputs[:own], first)
                self._append(k, "gradients", record.gradients[:own], first)
            write_json(self._state, {"of": self._of, "done": first + own})
            progress(first + own, count, "recording sequences")

    def arrays(self, part: str) -> dict[str, Kept]:
        """The "inputs" or "gradients" of each layer, by its path."""
        shape = (len(self._batch), *self._row)
        return {path: Kept(self._file(k, part), shape) for k, path in enumerate(self._paths)}

    def _file(self, layer: int, part: str) -> Path:
        return self._folder / f"{part}.{layer}.f32"

    def _append(self, layer: int, part: str, rows: np.ndarray, first: int) -> None:
        """Write rows after the first `first` ones. Later rows of an interrupted run are
        overwritten."""
        path = self._file(layer, part)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(first * int(np.prod(self._row)) * 4)
            file.write(np.ascontiguousarray(rows, np.float32).tobytes())


class Watched(AbstractMethod):
    """A method that reports how many of the `layers` it has weighed, a few of them at a time, and
    how many it has cut."""

    needs_data: ClassVar[bool] = True

    def __init__(self, method: Data, progress: Progress, layers: int):
        self._method, self._progress, self._layers = method, progress, layers
        self._turn, self._finished = threading.Semaphore(LAYERS_AT_ONCE), itertools.count(1)
        self._cuts = itertools.count()

    def record(self, model: Any, layers: Mapping[Any, AbstractSSM]) -> Any:
        return self._method.record(model, layers)

    def spectrum(self, name: str, layer: AbstractSSM, data: LayerData | None) -> AbstractSpectrum:
        with self._turn:
            spectrum = self._method.spectrum(name, layer, data)
            self._progress(next(self._finished), self._layers, "weighing layers")
        give_back_freed_memory()
        return WatchedSpectrum(spectrum, self._cut)

    def _cut(self) -> None:
        """A layer has been cut. All are cut again where a policy tries several sizes."""
        give_back_freed_memory()
        self._progress(next(self._cuts) % self._layers + 1, self._layers, "cutting layers")


class WatchedSpectrum(AbstractSpectrum):
    """A spectrum that calls `told` after each cut of its layer."""

    def __init__(self, spectrum: AbstractSpectrum, told: Callable[[], None]):
        self._spectrum, self._told = spectrum, told
        self.layer, self.sigma = spectrum.layer, spectrum.sigma

    @property
    def is_known(self) -> bool:
        return self._spectrum.is_known

    def raised(self, rank: int, allowed: float) -> int:
        return self._spectrum.raised(rank, allowed)

    def planned(self, path: str, rank: int) -> LayerPlan:
        plan = self._spectrum.planned(path, rank)
        self._told()
        return plan


def _fingerprint(model: LanguageModel, batch: Int[np.ndarray, "k L"]) -> str:
    """The fingerprint of recordings."""
    digest = hashlib.sha256(np.ascontiguousarray(batch).tobytes())
    digest.update(repr(batch.shape).encode())
    for x in jax.tree.leaves(eqx.filter(model, eqx.is_array)):
        content: Any = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        digest.update(content)
    return digest.hexdigest()
