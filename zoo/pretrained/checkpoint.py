"""Language models from and to checkpoint folders: Hugging Face's Mamba and Mamba-2, and those of
flash-linear-attention.

A folder holds `config.json` and `model.safetensors`, or its pieces with
`model.safetensors.index.json`. Nothing is unpickled and nothing is downloaded.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ..network.language_model import LanguageModel
from ..typing import checked
from .kinds import (
    KINDS,
    Config,
    Kind,
    Shapes,
    model_from,
    model_shapes,
    model_tensors,
    norms_of,
    sizes_of,
)
from .settings import CONFIG, check_original, check_settings, read_object, shown

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(jnp.bfloat16),
}
"""The tensors that are read and written, as safetensors calls their types."""


@checked
def load(folder: Path | str) -> LanguageModel:
    """The language model in `folder`, its tensors as they are stored, bit for bit.

    Call it with `eqx.nn.State(model)`, or stream it. A ValueError names settings that are not
    supported, and tensors that are missing, unexpected, or of another shape than config.json says.
    """
    folder = Path(folder)
    given = read_config(folder)
    kind = _kind(given)
    config = kind.defaults | {k: v for k, v in given.items() if k in kind.defaults}
    check_settings(config)
    if config["hidden_act"] not in kind.names.activations:
        allowed = kind.names.activations[0]
        raise ValueError(f"{CONFIG}: hidden_act={config['hidden_act']!r}, allowed: {allowed!r}")
    arrays = _read_tensors(folder)
    if config["tie_word_embeddings"]:
        _drop_tied_head(arrays, kind.names.embedding)
    _check(arrays, model_shapes(kind, config), folder)
    tensors = {name: _to_jax(name, x) for name, x in arrays.items()}
    return model_from(kind, config, tensors)


@checked
def save(folder: Path | str, model: LanguageModel, *, config: Mapping[str, Any] | None = None):
    """Write `model` to `folder`, which is made if need be, as Hugging Face's transformers reads it.

    `config` are further entries of config.json, such as the numbers of special tokens in that of
    the folder that the model came from (`read_config`); what the model itself says comes first. A
    ValueError says what cannot be written: layers of several kinds or sizes, other norms.
    """
    settings = _settings(model)
    kind = KINDS[settings["model_type"]]
    kept = {k: v for k, v in (config or {}).items() if k not in ("torch_dtype", "auto_map")}
    arrays = {name: np.asarray(x) for name, x in model_tensors(kind, model).items()}
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, x in arrays.items():
        if x.dtype not in names:
            allowed = ", ".join(str(dtype) for dtype in names)
            raise ValueError(f"{name} has dtype {x.dtype}, allowed: {allowed}")
    settings["dtype"] = arrays[kind.names.embedding].dtype.name
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS, safetensors.numpy.save(arrays, {"format": "pt"}))
    text = json.dumps(kept | settings, indent=2, sort_keys=True) + "\n"
    _write(folder / CONFIG, text.encode())
    (folder / INDEX).unlink(missing_ok=True)


@checked
def read_config(folder: Path | str) -> Config:
    """The entries of `folder`'s config.json."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: a checkpoint folder has a {CONFIG}")
    return read_object(path)


def _kind(config: Config) -> Kind:
    check_original(config)
    name = config.get("model_type")
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"{CONFIG}: model_type={name!r}, allowed: {', '.join(KINDS)}")
    return KINDS[name]


def _settings(model: LanguageModel) -> Config:
    """What config.json says of `model`."""
    layers = [block.streamed()[1] for block in model.blocks]
    found = [
        name
        for name, kind in KINDS.items()
        if layers and isinstance(layers[0], kind.layer) and kind.holds(layers[0])
    ]
    if not found:
        kinds = sorted({type(layer).__name__ for layer in layers})
        allowed = " or ".join(dict.fromkeys(kind.layer.__name__ for kind in KINDS.values()))
        raise ValueError(f"model has layers {kinds}, allowed: {allowed}, one or more")
    kind = KINDS[found[0]]
    norms = norms_of(model)
    plain = [norm for norm in norms if isinstance(norm, eqx.nn.RMSNorm) and norm.bias is None]
    if len(plain) < len(norms):
        raise ValueError("model has other norms than RMSNorm without bias, allowed: norm='rms'")
    epsilons = {norm.eps for norm in plain}
    if len(epsilons) > 1:
        raise ValueError(f"model's norms have eps {sorted(epsilons)}, allowed: the same")
    for i, (block, layer) in enumerate(zip(model.blocks, layers, strict=True)):
        if not isinstance(block, kind.block):
            raise ValueError(
                f"blocks[{i}] is a {type(block).__name__}, allowed with {kind.layer.__name__}: "
                f"{kind.block.__name__}"
            )
        if not isinstance(layer, kind.layer):
            raise ValueError(
                f"blocks[{i}].ssm is a {type(layer).__name__}, allowed: {kind.layer.__name__}, as "
                "blocks[0].ssm"
            )
        if not kind.holds(layer):
            raise ValueError(
                f"blocks[{i}].ssm must have maps if blocks[0].ssm has, got one of them with"
            )
        if kind.config(layer) != kind.config(layers[0]):
            ours, first = kind.config(layer), kind.config(layers[0])
            other = [f"{k}={ours[k]}" for k in ours if ours[k] != first[k]]
            raise ValueError(
                f"blocks[{i}].ssm has {', '.join(other)}, allowed: as in blocks[0].ssm, "
                f"{', '.join(f'{k}={first[k]}' for k in ours if ours[k] != first[k])}"
            )
    own = kind.config(layers[0]).get(kind.names.epsilon)
    if own is not None and own not in epsilons:
        raise ValueError(f"blocks[0].ssm has eps={own}, allowed: as the norms, {epsilons.pop()}")
    sizes = [sizes_of(block) for block in model.blocks]
    if any(size != sizes[0] for size in sizes):
        raise ValueError(f"model's blocks have {sizes}, allowed: the same")
    return (
        kind.config(layers[0])
        | sizes[0]
        | {
            "architectures": [kind.architecture],
            "model_type": found[0],
            "vocab_size": model.vocabulary,
            "num_hidden_layers": len(layers),
            kind.names.epsilon: epsilons.pop(),
            "tie_word_embeddings": model.head is None,
        }
    )


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    if (folder / WEIGHTS).is_file():
        return _read_file(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} holds neither {WEIGHTS} nor {INDEX}{_advice(folder)}")
    places = _places(folder / INDEX)
    pieces = {}
    for name in sorted(set(places.values())):
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise FileNotFoundError(f"{path}, which {INDEX} names, is not there")
        pieces[name] = _read_file(path)
    for tensor, name in places.items():
        if tensor not in pieces[name]:
            raise ValueError(f"{INDEX} says that {tensor} is in {name}, where it is not")
    return {tensor: x for piece in pieces.values() for tensor, x in piece.items()}


def _places(index: Path) -> dict[str, str]:
    """Which piece each tensor is in."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
        raise ValueError(
            f"{index}: `weight_map` must be an object of file names, got {shown(places)}"
        )
    return places


def _advice(folder: Path) -> str:
    """What to do with a folder of pickled weights."""
    if not any(folder.glob("pytorch_model*.bin")):
        return ""
    return (
        ": pytorch_model.bin is not unpickled here; read the folder with transformers, and write "
        "it with save_pretrained, which makes safetensors"
    )


def _read_file(path: Path) -> dict[str, np.ndarray]:
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise ValueError(
                f"{name} in {path} has dtype {entry['dtype']}, allowed: {', '.join(DTYPES)}"
            )
        flat = np.frombuffer(entry["data"], DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def _drop_tied_head(arrays: dict[str, np.ndarray], name: str) -> None:
    """Some checkpoints hold the tied head all the same; it must then be the embedding."""
    head = arrays.pop("lm_head.weight", None)
    embedding = arrays.get(name)
    if head is not None and embedding is not None and not np.array_equal(head, embedding):
        raise ValueError(
            f"lm_head.weight is not {name}, allowed with {CONFIG}'s "
            "tie_word_embeddings: the same, or none"
        )


def _check(arrays: Mapping[str, np.ndarray], shapes: Shapes, folder: Path) -> None:
    """ValueError unless there are just these tensors, of these shapes."""
    problems = [f"{name} is missing" for name in shapes if name not in arrays]
    problems += [f"{name} is unexpected" for name in arrays if name not in shapes]
    problems += [
        f"{name} has shape {arrays[name].shape}, allowed: {shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if problems:
        listed = "; ".join(problems[:MOST_PROBLEMS])
        more = len(problems) - MOST_PROBLEMS
        listed += f"; and {more} more" if more > 0 else ""
        raise ValueError(f"the tensors in {folder} are not those of its {CONFIG}: {listed}")


def _to_jax(name: str, x: np.ndarray) -> jax.Array:
    if x.dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(f"{name} is float64, allowed where jax_enable_x64 is off: up to float32")
    return jnp.asarray(x)


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing."""
    part = path.with_suffix(".part")
    part.write_bytes(content)
    os.replace(part, path)


MOST_PROBLEMS = 8
"""Wrong tensors that an error lists."""
