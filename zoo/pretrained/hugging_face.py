"""How Hugging Face calls the settings and tensors of Mamba and Mamba-2 language models."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array

from ..layers.affine import Linear
from ..layers.base import AbstractSSM
from ..layers.causal_conv import CausalConv
from ..layers.mamba import Mamba, TiedLog
from ..layers.mamba2 import GatedRMSNorm, Mamba2
from ..network.block import MixerBlock
from ..network.language_model import LanguageModel
from ..network.norm import SampleNorm
from ..network.pointwise import Dropout
from ..typing import checked
from .settings import number

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
    """The settings that `layer` says of itself."""
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
    )


@checked
def mamba2_config(layer: Mamba2) -> Config:
    """The settings that `layer` says of itself."""
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
    return _common_tensors(layer) | {
        "dt_bias": layer.dt_bias,
        "A_log": layer.A_log,
        "norm.weight": layer.norm.weight,
    }


class Kind(NamedTuple):
    """A `model_type` of Hugging Face."""

    layer: type[AbstractSSM]
    architecture: str
    defaults: Config
    shapes: Callable[[Config], Shapes]
    build: Callable[[Config, Tensors], AbstractSSM]
    config: Callable[..., Config]
    tensors: Callable[..., dict[str, Array]]


KINDS: dict[str, Kind] = {
    "mamba": Kind(
        Mamba,
        "MambaForCausalLM",
        MAMBA_DEFAULTS,
        mamba_shapes,
        mamba_from,
        mamba_config,
        mamba_tensors,
    ),
    "mamba2": Kind(
        Mamba2,
        "Mamba2ForCausalLM",
        MAMBA2_DEFAULTS,
        mamba2_shapes,
        mamba2_from,
        mamba2_config,
        mamba2_tensors,
    ),
}


@checked
def model_shapes(kind: Kind, config: Config) -> Shapes:
    """All tensors of a model, `lm_head.weight` only where it is not the embedding itself."""
    V, H = config["vocab_size"], config["hidden_size"]
    shapes = {"backbone.embeddings.weight": (V, H), "backbone.norm_f.weight": (H,)}
    for i in range(config["num_hidden_layers"]):
        prefix = f"backbone.layers.{i}."
        shapes[prefix + "norm.weight"] = (H,)
        shapes |= {f"{prefix}mixer.{k}": shape for k, shape in kind.shapes(config).items()}
    return shapes if config["tie_word_embeddings"] else shapes | {"lm_head.weight": (V, H)}


@checked
def model_from(kind: Kind, config: Config, tensors: Tensors) -> LanguageModel:
    """The model of these tensors, called as in `model_shapes`."""
    norms = {name: _norm(config, x) for name, x in tensors.items() if _is_norm(name)}
    blocks = []
    for i in range(config["num_hidden_layers"]):
        prefix = f"backbone.layers.{i}.mixer."
        mixer = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
        norm = norms[f"backbone.layers.{i}.norm.weight"]
        blocks.append(MixerBlock(norm, kind.build(config, mixer), Dropout(0.0)))
    tied = config["tie_word_embeddings"]
    return LanguageModel(
        embedding=eqx.nn.Embedding(weight=tensors["backbone.embeddings.weight"]),
        blocks=tuple(blocks),
        norm=norms["backbone.norm_f.weight"],
        head=None if tied else Linear(tensors["lm_head.weight"]),
    )


@checked
def model_tensors(kind: Kind, model: LanguageModel) -> dict[str, Array]:
    """Inverse of `model_from`."""
    tensors = {
        "backbone.embeddings.weight": model.embedding.weight,
        "backbone.norm_f.weight": _present(model.norm.norm.weight),
    }
    for i, block in enumerate(model.blocks):
        norm, layer = block.streamed()
        tensors[f"backbone.layers.{i}.norm.weight"] = _present(norm.weight)
        for name, x in kind.tensors(layer).items():
            tensors[f"backbone.layers.{i}.mixer.{name}"] = x
    return tensors if model.head is None else tensors | {"lm_head.weight": model.head.weight}


def _inner(config: Config) -> int:
    return int(config["expand"] * config["hidden_size"])


def _expand(d_inner: int, d_model: int) -> int | float:
    """The `expand` of which `_inner` makes `d_inner`: a whole number where there is one."""
    if d_inner % d_model == 0:
        return d_inner // d_model
    share = d_inner / d_model
    return share if int(share * d_model) == d_inner else math.nextafter(share, math.inf)


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
        "expand": _expand(d_inner, layer.d_model),
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


def _is_norm(name: str) -> bool:
    return name.endswith(("norm_f.weight", ".norm.weight")) and ".mixer." not in name


def _norm(config: Config, weight: Array) -> SampleNorm:
    norm = eqx.nn.RMSNorm(len(weight), eps=config["layer_norm_epsilon"], use_bias=False)
    return SampleNorm(eqx.tree_at(lambda norm: norm.weight, norm, weight))


def _present(x: Array | None) -> Array:
    assert x is not None
    return x


def _json_number(x: float) -> Any:
    return x if math.isfinite(x) else {"__float__": "Infinity"}
