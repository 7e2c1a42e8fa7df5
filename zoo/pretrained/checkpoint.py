"""Language models from and to checkpoint folders: Hugging Face's Mamba and Mamba-2, and those of
flash-linear-attention.

A folder holds `config.json` and `model.safetensors`, or its pieces with
`model.safetensors.index.json`; those of the package mamba_ssm are read too. Nothing is unpickled
and nothing is downloaded.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import safetensors.numpy

from ..layers.matrix import AbstractMatrix
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
from .original import from_original, is_original, renamed
from .settings import CONFIG, check_settings, read_object, shown
from .weights import (
    DTYPES,
    INDEX,
    WEIGHTS,
    Stored,
    read_tensors,
    same_entries,
    stored_tensors,
)


@checked
def load(folder: Path | str) -> LanguageModel:
    """The language model in `folder`, its tensors as they are stored, bit for bit.

    A folder of the package mamba_ssm is read where it has safetensors. Tensors are read one by one,
    so that memory holds hardly more than the model.

    Call it with `eqx.nn.State(model)`, or stream it. A ValueError names settings that are not
    supported, and tensors that are missing, unexpected, or of another shape than config.json says.
    """
    folder = Path(folder)
    given = read_config(folder)
    original = is_original(given)
    if original:
        given = from_original(given, folder)
    kind = _kind(given)
    config = kind.defaults | {k: v for k, v in given.items() if k in kind.defaults}
    check_settings(config)
    if config["hidden_act"] not in kind.names.activations:
        allowed = kind.names.activations[0]
        given = shown(config["hidden_act"])
        raise ValueError(f"{CONFIG}: `hidden_act` must be {shown(allowed)}, got {given}")
    stored = stored_tensors(folder)
    stored = renamed(stored) if original else stored
    if config["tie_word_embeddings"]:
        _drop_tied_head(stored, kind.names.embedding)
    _check(stored, model_shapes(kind, config), folder)
    return model_from(kind, config, read_tensors(stored))


@checked
def save(folder: Path | str, model: LanguageModel, *, config: Mapping[str, Any] | None = None):
    """Write `model` to `folder`, in the layout of Hugging Face's transformers. The folder is
    created if it does not exist. A Mamba-2 with maps of B and C (`compress.Data(maps=True)`) gets
    its own `model_type`, since its layout is not the standard one: `load` reads it, transformers
    refuses it.

    `config` are further entries of config.json, such as the special tokens in the config.json that
    the model came from (`read_config`). The model's own settings take precedence. ValueError for
    models that the layout cannot hold: layers of several kinds or sizes, other norms.
    """
    _check_floating(model)
    settings = _settings(model)
    kind = KINDS[settings["model_type"]]
    given = {} if config is None or is_original(config) else config
    kept = {k: v for k, v in given.items() if k not in ("torch_dtype", "auto_map")}
    arrays = {name: np.asarray(x) for name, x in model_tensors(kind, model).items()}
    names = {dtype: name for name, dtype in DTYPES.items()}
    for name, x in arrays.items():
        if x.dtype not in names:
            allowed = ", ".join(str(dtype) for dtype in names)
            raise ValueError(f"{name} must have one of the dtypes {allowed}, got {x.dtype}")
    settings["dtype"] = arrays[kind.names.embedding].dtype.name
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(kept | settings, indent=2, sort_keys=True) + "\n"
    # not `save`, which would make the whole file in memory
    _write(folder / WEIGHTS, lambda to: safetensors.numpy.save_file(arrays, to, {"format": "pt"}))
    _write(folder / CONFIG, lambda to: to.write_text(text))
    (folder / INDEX).unlink(missing_ok=True)


def _check_floating(model: LanguageModel) -> None:
    """ValueError for weights that no array holds."""
    leaves = jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, AbstractMatrix))
    if any(isinstance(leaf, AbstractMatrix) for leaf in leaves):
        raise ValueError(
            "`model` must have weights in floating point, got some in 8 bits, which "
            "`equinox.tree_serialise_leaves` saves"
        )


@checked
def read_config(folder: Path | str) -> Config:
    """The entries of `folder`'s config.json."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: a checkpoint folder must have a {CONFIG}")
    return read_object(path)


def _kind(config: Config) -> Kind:
    name = config.get("model_type")
    if not isinstance(name, str) or name not in KINDS:
        listed = ", ".join(KINDS)
        raise ValueError(f"{CONFIG}: `model_type` must be one of {listed}, got {shown(name)}")
    return KINDS[name]


def _settings(model: LanguageModel) -> Config:
    """The entries of config.json for `model`."""
    if not all(block.norm_first for block in model.blocks):
        raise ValueError("`model` must have blocks with norm_first=True, got False")
    layers = [block.streamed()[1] for block in model.blocks]
    found = [
        name
        for name, kind in KINDS.items()
        if layers and isinstance(layers[0], kind.layer) and kind.holds(layers[0])
    ]
    if not found:
        kinds = sorted({type(layer).__name__ for layer in layers})
        allowed = " or ".join(dict.fromkeys(kind.layer.__name__ for kind in KINDS.values()))
        raise ValueError(
            f"`model` must have one layer or more of {allowed}, got {', '.join(kinds) or 'none'}"
        )
    kind = KINDS[found[0]]
    norms = norms_of(model)
    plain = [norm for norm in norms if isinstance(norm, eqx.nn.RMSNorm) and norm.bias is None]
    if len(plain) < len(norms):
        raise ValueError("`model` must have norms without bias, norm='rms', got others")
    epsilons = {norm.eps for norm in plain}
    if len(epsilons) > 1:
        raise ValueError(f"`model` must have norms of one eps, got {sorted(epsilons)}")
    _check_alike(model, kind, layers)
    own = kind.config(layers[0]).get(kind.names.epsilon)
    if own is not None and own not in epsilons:
        raise ValueError(
            f"blocks[0].ssm must have the eps of the norms, {epsilons.pop()}, got {own}"
        )
    sizes = [sizes_of(block) for block in model.blocks]
    if any(size != sizes[0] for size in sizes):
        raise ValueError(f"`model` must have blocks of one size, got {sizes}")
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


def _check_alike(model: LanguageModel, kind: Kind, layers: Sequence[Any]) -> None:
    """ValueError unless all blocks and layers have the kind and the settings of the first ones."""
    for i, (block, layer) in enumerate(zip(model.blocks, layers, strict=True)):
        if not isinstance(block, kind.block):
            raise ValueError(
                f"blocks[{i}] must be a {kind.block.__name__} with a {kind.layer.__name__}, got a "
                f"{type(block).__name__}"
            )
        if not isinstance(layer, kind.layer):
            raise ValueError(
                f"blocks[{i}].ssm must be a {kind.layer.__name__}, as blocks[0].ssm, got a "
                f"{type(layer).__name__}"
            )
        if not kind.holds(layer):
            raise ValueError(
                f"blocks[{i}].ssm must have maps if blocks[0].ssm has, got one of them with"
            )
        if kind.config(layer) != kind.config(layers[0]):
            ours, first = kind.config(layer), kind.config(layers[0])
            other = [f"{k}={ours[k]}" for k in ours if ours[k] != first[k]]
            raise ValueError(
                f"blocks[{i}].ssm must have, as blocks[0].ssm, "
                f"{', '.join(f'{k}={first[k]}' for k in ours if ours[k] != first[k])}, got "
                f"{', '.join(other)}"
            )


def _drop_tied_head(stored: dict[str, Stored], name: str) -> None:
    """Some checkpoints also hold the tied head. It must then equal the embedding."""
    head = stored.pop("lm_head.weight", None)
    embedding = stored.get(name)
    if head is not None and embedding is not None and not same_entries(head, embedding):
        raise ValueError(
            f"lm_head.weight must equal {name}, or be missing, with `tie_word_embeddings` in "
            f"{CONFIG}, got other numbers"
        )


def _check(arrays: Mapping[str, Stored], shapes: Shapes, folder: Path) -> None:
    """ValueError unless exactly these tensors, with these shapes, are stored."""
    problems = [f"{name} is missing" for name in shapes if name not in arrays]
    problems += [f"{name} is unexpected" for name in arrays if name not in shapes]
    problems += [
        f"{name} must have shape {shape}, got {arrays[name].shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if problems:
        listed = "; ".join(problems[:MOST_PROBLEMS])
        more = len(problems) - MOST_PROBLEMS
        listed += f"; and {more} more" if more > 0 else ""
        raise ValueError(f"the tensors in {folder} must be those of its {CONFIG}: {listed}")


def _write(path: Path, written: Callable[[Path], object]) -> None:
    """The whole file, which `written` writes, or none of it."""
    part = path.with_suffix(".part")
    written(part)
    os.replace(part, path)


MOST_PROBLEMS = 8
"""How many wrong tensors an error lists."""
