"""Names of settings and tensors of Mamba and Mamba-2 language models in Hugging Face's format."""

import math
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from ..layers.affine import Linear
from ..layers.causal_conv import CausalConv
from ..layers.mamba import Mamba, TiedLog
from ..layers.mamba2 import GatedRMSNorm, Mamba2
from ..typing import checked
from .settings import number, share_of, times

Config = dict[str, Any]
Tensors = Mapping[str, Array]
Shapes = dict[str, tuple[int, ...]]

MAMBA_DEFAULTS: Config = {
    "vocab_size": 50280,
    "hidden_size": 768,
    "state_size": 16,
    "num_hidden_layers": 32,
    "layer_norm_epsilon": 1e-5,
    "expand": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
    "time_step_rank": "auto",
    "tie_word_embeddings": True,
}

MAMBA2_DEFAULTS: Config = {
    "vocab_size": 32768,
    "hidden_size": 4096,
    "state_size": 128,
    "num_hidden_layers": 64,
    "layer_norm_epsilon": 1e-5,
    "expand": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "hidden_act": "silu",
    "num_heads": 128,
    "head_dim": 64,
    "n_groups": 8,
    "chunk_size": 256,
    "time_step_limit": [0.0, {"__float__": "Infinity"}],
    "tie_word_embeddings": False,
}


@checked
def mamba_shapes(config: Config) -> Shapes:
    """The tensors of a Mamba mixer."""
    H, N, d = config["hidden_size"], config["state_size"], _inner(config)
    rank = config["time_step_rank"]
    rank = math.ceil(H / 16) if rank == "auto" else rank
    return _projections(config, 2 * d, d) | {
        "x_proj.weight": (rank + 2 * N, d),
        "dt_proj.weight": (d, rank),
        "dt_proj.bias": (d,),
        "A_log": (d, N),
        "D": (d,),
    }


@checked
def mamba_from(config: Config, tensors: Tensors) -> Mamba:
    """The layer of these tensors, called as in `mamba_shapes`."""
    return Mamba(
        in_proj=_linear(tensors, "in_proj"),
        conv1d=_convolution(tensors),
        x_proj=_linear(tensors, "x_proj"),
        dt_proj=_linear(tensors, "dt_proj"),
        A_log=tensors["A_log"],
        D=tensors["D"],
        out_proj=_linear(tensors, "out_proj"),
    )


@checked
def mamba_config(layer: Mamba) -> Config:
    """The settings of `layer`."""
    return _common_config(layer, layer.d_inner) | {"time_step_rank": layer.dt_rank}


@checked
def mamba_tensors(layer: Mamba) -> dict[str, Array]:
    """Inverse of `mamba_from`; a tied A is written out."""
    A_log = layer.A_log.full() if isinstance(layer.A_log, TiedLog) else layer.A_log
    return _common_tensors(layer) | {
        "x_proj.weight": layer.x_proj.weight,
        "dt_proj.weight": layer.dt_proj.weight,
        "dt_proj.bias": _present(layer.dt_proj.bias),
        "A_log": A_log,
    }


@checked
def mamba2_shapes(config: Config) -> Shapes:
    """The tensors of a Mamba-2 mixer."""
    d, heads = _inner(config), config["num_heads"]
    if heads * config["head_dim"] != d:
        raise ValueError(
            f"config.json: num_heads={heads} times head_dim={config['head_dim']} must be "
            f"expand * hidden_size={d}"
        )
    channels = d + 2 * config["n_groups"] * config["state_size"]
    return _projections(config, d + channels + heads, channels) | {
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (heads,),
        "norm.weight": (d,),
    }


@checked
def mapped_mamba2_shapes(config: Config) -> Shapes:
    """The tensors of a Mamba-2 mixer with maps of B and C, which is not the standard layout."""
    shape = (config["n_groups"], config["state_size"], config["mapped_state_size"])
    return mamba2_shapes(config) | {"B_map": shape, "C_map": shape}


@checked
def mamba2_from(config: Config, tensors: Tensors) -> Mamba2:
    """The layer of these tensors, called as in `mamba2_shapes`."""
    low, high = (number(x) for x in config["time_step_limit"])
    epsilon = config["layer_norm_epsilon"]
    return Mamba2(
        in_proj=_linear(tensors, "in_proj"),
        conv1d=_convolution(tensors),
        dt_bias=tensors["dt_bias"],
        A_log=tensors["A_log"],
        D=tensors["D"],
        norm=GatedRMSNorm(tensors["norm.weight"], config["n_groups"], epsilon),
        out_proj=_linear(tensors, "out_proj"),
        dt_limit=(low, high),
        chunk_size=config["chunk_size"],
        B_map=tensors.get("B_map"),
        C_map=tensors.get("C_map"),
    )


@checked
def mamba2_config(layer: Mamba2) -> Config:
    """The settings of `layer`."""
    return _common_config(layer, layer.d_inner) | {
        "num_heads": layer.heads,
        "head_dim": layer.headdim,
        "n_groups": layer.n_groups,
        "chunk_size": layer.chunk_size,
        "time_step_limit": [_json_number(x) for x in layer.dt_limit],
    }


@checked
def mamba2_tensors(layer: Mamba2) -> dict[str, Array]:
    """Inverse of `mamba2_from`."""
    maps = {k: x for k, x in (("B_map", layer.B_map), ("C_map", layer.C_map)) if x is not None}
    return (
        _common_tensors(layer)
        | maps
        | {
            "dt_bias": layer.dt_bias,
            "A_log": layer.A_log,
            "norm.weight": layer.norm.weight,
        }
    )


@checked
def mapped_mamba2_config(layer: Mamba2) -> Config:
    """The settings of a `layer` with maps."""
    sizes = {"state_size": layer.convolved_states, "mapped_state_size": layer.d_state}
    return mamba2_config(layer) | sizes


def _inner(config: Config) -> int:
    return times(config["hidden_size"], config["expand"])


def _projections(config: Config, projected: int, convolved: int) -> Shapes:
    H, d = config["hidden_size"], _inner(config)
    shapes = {
        "in_proj.weight": (projected, H),
        "conv1d.weight": (convolved, 1, config["conv_kernel"]),
        "out_proj.weight": (H, d),
    }
    if config["use_bias"]:
        shapes |= {"in_proj.bias": (projected,), "out_proj.bias": (H,)}
    return shapes | {"conv1d.bias": (convolved,)} if config["use_conv_bias"] else shapes


def _common_config(layer: Mamba | Mamba2, d_inner: int) -> Config:
    return {
        "hidden_size": layer.d_model,
        "intermediate_size": d_inner,
        "state_size": layer.d_state,
        "expand": share_of(d_inner, layer.d_model),
        "conv_kernel": layer.conv1d.weight.shape[1],
        "use_bias": layer.in_proj.bias is not None,
        "use_conv_bias": layer.conv1d.bias is not None,
        "hidden_act": "silu",
    }


def _common_tensors(layer: Mamba | Mamba2) -> dict[str, Array]:
    tensors = {
        "in_proj.weight": layer.in_proj.weight,
        "in_proj.bias": layer.in_proj.bias,
        "conv1d.weight": layer.conv1d.weight[:, None],
        "conv1d.bias": layer.conv1d.bias,
        "D": layer.D,
        "out_proj.weight": layer.out_proj.weight,
        "out_proj.bias": layer.out_proj.bias,
    }
    return {name: x for name, x in tensors.items() if x is not None}


def _linear(tensors: Tensors, name: str) -> Linear:
    return Linear(tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def _convolution(tensors: Tensors) -> CausalConv:
    return CausalConv(tensors["conv1d.weight"][:, 0], tensors.get("conv1d.bias"))


def _present(x: Array | None) -> Array:
    assert x is not None
    return x


def _json_number(x: float) -> Any:
    return x if math.isfinite(x) else {"__float__": "Infinity"}
