"""Tensors in safetensors files, read one by one: a file is never in memory as a whole."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from ..typing import checked
from .settings import read_object, shown

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(jnp.bfloat16),
}
"""The tensors that are read and written, as safetensors calls their types."""


class Stored(NamedTuple):
    """A tensor in a file."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    """Its first byte in the file."""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @checked
    def read(self) -> np.ndarray:
        """The tensor, in memory."""
        flat = np.fromfile(self.file, np.uint8, self.size, offset=self.begin)
        return flat.view(self.dtype).reshape(self.shape)


@checked
def has_weights(folder: Path) -> bool:
    """Whether there are safetensors in `folder`."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


@checked
def stored_tensors(folder: Path) -> dict[str, Stored]:
    """All tensors in `folder`. Only their places and shapes are read."""
    if (folder / WEIGHTS).is_file():
        return _stored(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} holds neither {WEIGHTS} nor {INDEX}{_advice(folder)}")
    places = _places(folder / INDEX)
    pieces = {}
    for name in sorted(set(places.values())):
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise FileNotFoundError(f"{path} is missing, although {INDEX} names it")
        pieces[name] = _stored(path)
    for tensor, name in places.items():
        if tensor not in pieces[name]:
            raise ValueError(f"{INDEX} says that {tensor} is in {name}, which does not hold it")
    everything = {tensor: x for piece in pieces.values() for tensor, x in piece.items()}
    return everything | {tensor: pieces[name][tensor] for tensor, name in places.items()}


@checked
def read_tensors(stored: dict[str, Stored]) -> dict[str, jax.Array]:
    """The tensors as arrays of JAX. ValueError for one that holds NaN or infinity.

    The largest come first, so that the copies during reading never need more memory than the
    result.
    """
    arrays = {}
    for name, each in sorted(stored.items(), key=lambda item: -item[1].size):
        if each.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
            raise ValueError(
                f"{name} must be float32 or less where jax_enable_x64 is off, got float64"
            )
        array = each.read()
        _check_finite(name, array)
        arrays[name] = jax.block_until_ready(jnp.asarray(array))
    return {name: arrays[name] for name in stored}


def _check_finite(name: str, array: np.ndarray) -> None:
    """ValueError if a tensor holds NaN or infinity, looked for piece by piece."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, PIECE // 16):
        if not np.isfinite(flat[start : start + PIECE // 16]).all():
            raise ValueError(f"{name} must hold finite numbers, got NaN or infinity")


@checked
def same_entries(a: Stored, b: Stored) -> bool:
    """Whether two tensors are the same, compared piece by piece."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    for start in range(0, a.size, PIECE):
        count = min(PIECE, a.size - start)
        one, other = (np.fromfile(x.file, np.uint8, count, offset=x.begin + start) for x in (a, b))
        if not np.array_equal(one, other):
            return False
    return True


PIECE = 2**24
"""Bytes of a tensor that are compared at once."""


def _stored(path: Path) -> dict[str, Stored]:
    try:
        with safetensors.safe_open(path, framework="numpy"):  # which checks the whole header
            pass
    except safetensors.SafetensorError as error:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(f"{path} must be a safetensors file, got: {error}") from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{name} in {path} must have one of the dtypes {', '.join(DTYPES)}, got "
                f"{entry['dtype']}"
            )
        begin = 8 + length + entry["data_offsets"][0]
        tensors[name] = Stored(path, DTYPES[entry["dtype"]], tuple(entry["shape"]), begin)
    return tensors


def _places(index: Path) -> dict[str, str]:
    """The file that holds each tensor."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
        raise ValueError(
            f"{index}: `weight_map` must be an object of file names, got {shown(places)}"
        )
    return places


def _advice(folder: Path) -> str:
    """Advice for a folder of pickled weights."""
    if not any(folder.glob("pytorch_model*.bin")):
        return ""
    return (
        ": pytorch_model.bin is not unpickled here; read the folder with transformers, and write "
        "it with save_pretrained, which makes safetensors"
    )
