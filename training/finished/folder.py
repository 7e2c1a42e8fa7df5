"""A folder that holds a trained model: `model.safetensors`, and its description in `run.json`."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ..reporting.events import write_atomically, write_json
from ..settings.errors import UsageError

ABOUT, WEIGHTS = "run.json", "model.safetensors"

FORMAT = 1
"""The format number in `ABOUT`. It increases when an older reader would misread a newer folder."""


def save_model(folder: Path, arrays: Any, about: dict[str, Any]) -> None:
    """Write a pytree of arrays, by their paths in it, and a JSON dictionary to `folder`.

    `ABOUT` comes last: a folder that has it is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: np.asarray(x) for name, x in _flat(arrays).items()}
    write_atomically(folder / WEIGHTS, [safetensors.numpy.save(named)])
    write_json(folder / ABOUT, {"format": FORMAT, **about})


def read_about(folder: Path) -> dict[str, Any]:
    """The content of `ABOUT`. `UsageError` if it is damaged or of a newer version."""
    file = folder / ABOUT
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} must be JSON, got: {error}") from None
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise UsageError(f"{file} must be of format {FORMAT}, got {found!r}")
    return about


def read_arrays(folder: Path, like: Any) -> Any:
    """The arrays of `folder`, in the structure of `like`. `UsageError` if they do not fit it."""
    file = folder / WEIGHTS
    try:
        saved = safetensors.numpy.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:  # pyright: ignore[reportAttributeAccessIssue]
        raise UsageError(f"{file} cannot be read: {error}") from None
    wanted = _flat(like)
    if odd := sorted(wanted.keys() ^ saved.keys()):
        raise UsageError(f"{file} must hold the arrays that {ABOUT} describes, {odd[0]} differs")
    for name, x in wanted.items():
        if (saved[name].shape, saved[name].dtype) != (x.shape, x.dtype):
            found = f"{saved[name].dtype} of {saved[name].shape}"
            raise UsageError(f"{file}: {name} must be {x.dtype} of {x.shape}, got {found}")
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(saved[k]) for k in wanted])


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
