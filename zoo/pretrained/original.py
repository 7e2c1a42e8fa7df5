"""Checkpoints in the layout of the package mamba_ssm, translated to Hugging Face's names."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..typing import checked
from .settings import CONFIG, check_settings, shown
from .weights import Stored, has_weights

LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2"}
"""`ssm_cfg`'s `layer`, and the `model_type` of Hugging Face."""

NAMES = {
    "mamba": {
        "d_state": ("state_size", 16),
        "d_conv": ("conv_kernel", 4),
        "expand": ("expand", 2),
        "dt_rank": ("time_step_rank", "auto"),
        "bias": ("use_bias", False),
        "conv_bias": ("use_conv_bias", True),
    },
    "mamba2": {
        "d_state": ("state_size", 128),
        "d_conv": ("conv_kernel", 4),
        "expand": ("expand", 2),
        "headdim": ("head_dim", 64),
        "ngroups": ("n_groups", 1),
        "chunk_size": ("chunk_size", 256),
        "bias": ("use_bias", False),
        "conv_bias": ("use_conv_bias", True),
    },
}
"""Entries of `ssm_cfg`: their names in Hugging Face's format, and their defaults."""

STARTS = {
    "layer",
    "dt_min",
    "dt_max",
    "dt_init",
    "dt_scale",
    "dt_init_floor",
    "conv_init",
    "A_init_range",
    "use_fast_path",
    "use_mem_eff_path",
}
"""Entries of `ssm_cfg` that say how parameters start, or how fast code runs."""

FIXED: dict[str, Any] = {
    "attn_layer_idx": [],
    "d_intermediate": 0,
    "rms_norm": True,
}
"""Entries of config.json with the one value that is read."""

FIXED_OF_LAYER: dict[str, Any] = {
    "D_has_hdim": False,
    "rmsnorm": True,
    "norm_before_gate": False,
    "d_ssm": None,
}
"""The same of `ssm_cfg`."""


@checked
def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is in the layout of the package mamba_ssm."""
    return "model_type" not in config and ("ssm_cfg" in config or "n_layer" in config)


@checked
def from_original(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A config.json of mamba_ssm as one of Hugging Face.

    ValueError for settings that are not supported. If `folder` has no safetensors, the error says
    what to do.
    """
    if not has_weights(folder):
        raise ValueError(
            f"{CONFIG} is in the layout of the package mamba_ssm (`ssm_cfg`, `n_layer`), which is "
            "read where the weights are safetensors, and pickles are not opened: take the folder "
            "of the same name that ends in -hf, or convert this one by "
            "convert_mamba_ssm_checkpoint_to_pytorch.py of transformers"
        )
    layer = config.get("ssm_cfg") or {}
    if not isinstance(layer, dict):
        raise ValueError(f"{CONFIG}: `ssm_cfg` must be an object, got {shown(layer)}")
    _check_fixed(config, FIXED)
    _check_fixed(layer, FIXED_OF_LAYER)
    name = layer.get("layer", "Mamba1")
    kind = LAYERS.get(name) if isinstance(name, str) else None
    if kind is None:
        allowed = ", ".join(LAYERS)
        raise ValueError(f"{CONFIG}: `ssm_cfg.layer` must be one of {allowed}, got {name!r}")
    known = {*NAMES[kind], *STARTS, *FIXED_OF_LAYER, "dt_limit"}
    if odd := sorted(set(layer) - known):
        raise ValueError(f"{CONFIG}: `ssm_cfg` must have keys of {sorted(known)}, got {odd[0]!r}")
    told = {name: layer.get(ours, default) for ours, (name, default) in NAMES[kind].items()}
    width, vocabulary = config.get("d_model", 2560), config.get("vocab_size", 50277)
    multiple = config.get("pad_vocab_size_multiple", 8)
    numbers = {"d_model": width, "vocab_size": vocabulary, "pad_vocab_size_multiple": multiple}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{CONFIG}: `{name}` must be a whole number from 1, got {shown(value)}"
            )
    told |= {
        "model_type": kind,
        "hidden_size": width,
        "vocab_size": -(-vocabulary // multiple) * multiple,
        "num_hidden_layers": config.get("n_layer", 64),
        "tie_word_embeddings": config.get("tie_embeddings", True),
        "layer_norm_epsilon": 1e-5,
    }
    check_settings(told)
    if kind == "mamba2":
        told["time_step_limit"] = _limit(layer.get("dt_limit", [0.0, math.inf]))
        told["num_heads"] = int(told["expand"] * width) // told["head_dim"]
    return told


@checked
def renamed(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Tensors by Hugging Face's names."""
    names = {"backbone.embedding.weight": "backbone.embeddings.weight"}
    return {names.get(name, name): x for name, x in stored.items()}


def _limit(given: Any) -> Any:
    """Bounds of the steps, infinity as Hugging Face writes it."""
    if not isinstance(given, list):
        return given
    return [{"__float__": "Infinity"} if each == math.inf else each for each in given]


def _check_fixed(given: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name, value in fixed.items():
        if given.get(name, value) != value:
            got = shown(given[name])
            raise ValueError(f"{CONFIG}: `{name}` must be {shown(value)}, got {got}")
