"""Names of settings and tensors of DeltaNet and Gated DeltaNet models in flash-linear-attention.

(https://github.com/fla-org/flash-linear-attention, `fla/models/delta_net`, `gated_deltanet`.)
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from ..layers.affine import Linear
from ..layers.causal_conv import CausalConv
from ..layers.deltanet import DeltaNet
from ..layers.gated_deltanet import GatedDeltaNet
from ..layers.query_key_value import KeyMaps, QueryKeyValue
from ..typing import checked
from .settings import CONFIG, share_of, shown, times

Config = dict[str, Any]
Tensors = Mapping[str, Array]
Shapes = dict[str, tuple[int, ...]]

COMMON: Config = {
    "hidden_size": 2048,
    "use_short_conv": True,
    "conv_size": 4,
    "allow_neg_eigval": False,
    "hidden_act": "swish",
    "hidden_ratio": 4,
    "intermediate_size": None,
    "norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
    "attn": None,
    "attnres_block_size": None,
}

DELTA_NET_DEFAULTS: Config = COMMON | {
    "expand_k": 1.0,
    "expand_v": 1.0,
    "num_heads": 16,
    "num_hidden_layers": 24,
    "use_gate": False,
    "use_beta": True,
    "qk_norm": "l2",
    "qk_activation": "silu",
}

GATED_DELTANET_DEFAULTS: Config = COMMON | {
    "expand_v": 2.0,
    "head_dim": 256,
    "num_heads": 6,
    "num_v_heads": None,
    "num_hidden_layers": 21,
    "use_gate": True,
}

ONLY: Config = {
    "attn": None,
    "attnres_block_size": None,
    "use_beta": True,
    "qk_norm": "l2",
    "qk_activation": "silu",
}
"""Settings with a single supported value."""


@checked
def delta_net_shapes(config: Config) -> Shapes:
    """The tensors of a DeltaNet layer."""
    H, heads = config["hidden_size"], config["num_heads"]
    keys, values = (times(H, config[name]) for name in ("expand_k", "expand_v"))
    return _shapes(config, keys, values, heads, heads, (keys, values))


@checked
def delta_net_from(config: Config, tensors: Tensors) -> DeltaNet:
    """The layer of these tensors, called as in `delta_net_shapes`."""
    heads = config["num_heads"]
    return DeltaNet(
        b_proj=Linear(tensors["b_proj.weight"]),
        g_proj=_gate(config, tensors),
        o_norm=tensors["o_norm.weight"],
        o_proj=Linear(tensors["o_proj.weight"]),
        qkv=_qkv(config, tensors, heads, heads),
        negative=config["allow_neg_eigval"],
        eps=config["norm_eps"],
    )


@checked
def delta_net_config(layer: DeltaNet) -> Config:
    """The settings of `layer`."""
    H = layer.d_model
    return _config(layer) | {
        "num_heads": layer.heads,
        "expand_k": share_of(layer.heads * layer.qkv.keys, H),
        "expand_v": share_of(layer.heads * layer.values, H),
        "use_beta": True,
        "qk_norm": "l2",
        "qk_activation": "silu",
    }


@checked
def delta_net_tensors(layer: DeltaNet) -> dict[str, Array]:
    """Inverse of `delta_net_from`."""
    return _tensors(layer)


@checked
def gated_deltanet_shapes(config: Config) -> Shapes:
    """The tensors of a Gated DeltaNet layer."""
    heads, key_heads, K = _heads(config), config["num_heads"], config["head_dim"]
    if heads % key_heads:
        raise ValueError(f"{CONFIG}: `num_v_heads` must be a multiple of num_heads, got {heads}")
    keys, values = key_heads * K, heads * times(K, config["expand_v"])
    shapes = _shapes(config, keys, values, heads, key_heads, (K, values // heads))
    H = config["hidden_size"]
    return shapes | {"a_proj.weight": (heads, H), "A_log": (heads,), "dt_bias": (heads,)}


@checked
def gated_deltanet_from(config: Config, tensors: Tensors) -> GatedDeltaNet:
    """The layer of these tensors, called as in `gated_deltanet_shapes`."""
    return GatedDeltaNet(
        a_proj=Linear(tensors["a_proj.weight"]),
        b_proj=Linear(tensors["b_proj.weight"]),
        A_log=tensors["A_log"],
        dt_bias=tensors["dt_bias"],
        g_proj=_gate(config, tensors),
        o_norm=tensors["o_norm.weight"],
        o_proj=Linear(tensors["o_proj.weight"]),
        qkv=_qkv(config, tensors, _heads(config), config["num_heads"]),
        negative=config["allow_neg_eigval"],
        eps=config["norm_eps"],
    )


@checked
def gated_deltanet_config(layer: GatedDeltaNet) -> Config:
    """The settings of `layer`."""
    return _config(layer) | {
        "num_heads": layer.key_heads,
        "num_v_heads": None if layer.heads == layer.key_heads else layer.heads,
        "head_dim": layer.qkv.keys,
        "expand_v": share_of(layer.values, layer.qkv.keys),
    }


@checked
def gated_deltanet_tensors(layer: GatedDeltaNet) -> dict[str, Array]:
    """Inverse of `gated_deltanet_from`."""
    return _tensors(layer) | {
        "a_proj.weight": layer.a_proj.weight,
        "A_log": layer.A_log,
        "dt_bias": layer.dt_bias,
    }


@checked
def mapped(shapes: Callable[[Config], Shapes]) -> Callable[[Config], Shapes]:
    """The tensors of a layer with maps after its keys, which is not the standard layout."""

    def with_maps(config: Config) -> Shapes:
        plain = shapes(config)
        keys = plain["k_proj.weight"][0] // config["num_heads"]
        shape = (config["num_heads"], keys, config["mapped_key_dim"])
        return plain | {"q_map": shape, "k_map": shape}

    return with_maps


@checked
def mapped_config(config: Callable[..., Config]) -> Callable[..., Config]:
    """The settings of a layer with maps."""
    return lambda layer: config(layer) | {"mapped_key_dim": layer.d_state}


@checked
def has_maps(layer: DeltaNet | GatedDeltaNet) -> bool:
    """Whether the layer has maps after its keys."""
    return layer.qkv.maps is not None


@checked
def mlp_size(config: Config) -> int:
    """Channels inside the gated layer that follows the attention in each block."""
    if config["intermediate_size"] is not None:
        return config["intermediate_size"]
    ratio = 4 if config["hidden_ratio"] is None else config["hidden_ratio"]
    return 256 * -(-int(config["hidden_size"] * ratio * 2 / 3) // 256)


def _heads(config: Config) -> int:
    return config["num_heads"] if config["num_v_heads"] is None else config["num_v_heads"]


def _shapes(
    config: Config, keys: int, values: int, heads: int, key_heads: int, whole: tuple[int, int]
) -> Shapes:
    """The entries that both kinds share; `keys` and `values` count those of all heads."""
    for name, value in ONLY.items():
        if config.get(name, value) != value:
            raise ValueError(f"{CONFIG}: `{name}` must be {shown(value)}, got {config[name]!r}")
    if min(whole) < 1 or keys % key_heads or values % heads:
        raise ValueError(
            f"{CONFIG}: heads must divide the keys and the values of all, got {keys} keys, "
            f"{values} values, {key_heads} and {heads} heads"
        )
    H, taps = config["hidden_size"], config["conv_size"]
    sizes = {"q": keys, "k": keys, "v": values}
    shapes: Shapes = {f"{name}_proj.weight": (size, H) for name, size in sizes.items()}
    if config["use_short_conv"]:
        shapes |= {f"{name}_conv1d.weight": (size, 1, taps) for name, size in sizes.items()}
    if config["use_gate"]:
        shapes["g_proj.weight"] = (values, H)
    return shapes | {
        "b_proj.weight": (heads, H),
        "o_norm.weight": (values // heads,),
        "o_proj.weight": (H, values),
    }


def _qkv(config: Config, tensors: Tensors, heads: int, key_heads: int) -> QueryKeyValue:
    q, k, v = (Linear(tensors[f"{name}_proj.weight"]) for name in "qkv")
    conv = None
    if config["use_short_conv"]:
        weights = [tensors[f"{name}_conv1d.weight"][:, 0] for name in "qkv"]
        conv = CausalConv(jnp.concatenate(weights), None)
    return QueryKeyValue(
        q_proj=q,
        k_proj=k,
        v_proj=v,
        conv1d=conv,
        maps=KeyMaps(tensors["q_map"], tensors["k_map"]) if "q_map" in tensors else None,
        key_heads=key_heads,
        heads=heads,
        feature="unit",
        scale=(k.weight.shape[0] // key_heads) ** -0.5,
    )


def _gate(config: Config, tensors: Tensors) -> Linear | None:
    return Linear(tensors["g_proj.weight"]) if config["use_gate"] else None


def _config(layer: DeltaNet | GatedDeltaNet) -> Config:
    """The settings that both kinds share. ValueError for models that the layout cannot hold."""
    conv = layer.qkv.conv1d
    if conv is not None and conv.bias is not None:
        raise ValueError("model must have convolutions without a bias, got some with one")
    return {
        "hidden_size": layer.d_model,
        "use_short_conv": conv is not None,
        "conv_size": 4 if conv is None else conv.weight.shape[1],
        "allow_neg_eigval": layer.negative,
        "use_gate": layer.g_proj is not None,
        "hidden_act": "swish",
        "norm_eps": layer.eps,
    }


def _tensors(layer: DeltaNet | GatedDeltaNet) -> dict[str, Array]:
    part = layer.qkv
    tensors = {
        "q_proj.weight": part.q_proj.weight,
        "k_proj.weight": part.k_proj.weight,
        "v_proj.weight": part.v_proj.weight,
        "b_proj.weight": layer.b_proj.weight,
        "o_norm.weight": layer.o_norm,
        "o_proj.weight": layer.o_proj.weight,
    }
    if layer.g_proj is not None:
        tensors["g_proj.weight"] = layer.g_proj.weight
    if part.maps is not None:
        tensors |= {"q_map": part.maps.q, "k_map": part.maps.k}
    if part.conv1d is not None:
        n = part.q_proj.weight.shape[0]
        weight = part.conv1d.weight[:, None]
        pieces = {"q": weight[:n], "k": weight[n : 2 * n], "v": weight[2 * n :]}
        tensors |= {f"{name}_conv1d.weight": piece for name, piece in pieces.items()}
    return tensors
