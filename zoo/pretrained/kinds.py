"""The layouts of checkpoint folders, and the language models that are read from them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import Array

from ..layers.affine import Linear
from ..layers.base import AbstractSSM
from ..layers.deltanet import DeltaNet
from ..layers.gated_deltanet import GatedDeltaNet
from ..layers.mamba import Mamba
from ..layers.mamba2 import Mamba2
from ..network.block import AbstractBlock, MixerBlock
from ..network.language_model import LanguageModel
from ..network.mlp_block import MLPBlock, SwiGLU
from ..network.norm import FixedNorm, SampleNorm
from ..network.pointwise import Dropout
from ..typing import checked
from . import fla, hugging_face

Config = dict[str, Any]
Tensors = Mapping[str, Array]
Shapes = dict[str, tuple[int, ...]]


class Names(NamedTuple):
    """Names in a layout of everything around the layers."""

    embedding: str
    norm: str
    """The norm after the blocks."""
    block: str
    """Prefix of the names of a block's tensors, with {} for its number."""
    block_norm: str
    layer: str
    """Prefix of the names of a layer's tensors inside its block."""
    epsilon: str
    """The setting that holds the norms' epsilon."""
    activations: tuple[str, ...]
    """The values of `hidden_act`, which all mean SiLU."""


BACKBONE = Names(
    embedding="backbone.embeddings.weight",
    norm="backbone.norm_f.weight",
    block="backbone.layers.{}.",
    block_norm="norm.weight",
    layer="mixer.",
    epsilon="layer_norm_epsilon",
    activations=("silu", "swish"),
)
"""Of transformers' Mamba and Mamba-2."""

FLA = Names(
    embedding="model.embeddings.weight",
    norm="model.norm.weight",
    block="model.layers.{}.",
    block_norm="attn_norm.weight",
    layer="attn.",
    epsilon="norm_eps",
    activations=("swish", "silu"),
)
"""Of flash-linear-attention."""


class Kind(NamedTuple):
    """A `model_type`."""

    layer: type[AbstractSSM]
    block: type[AbstractBlock]
    names: Names
    architecture: str
    defaults: Config
    shapes: Callable[[Config], Shapes]
    build: Callable[[Config, Tensors], AbstractSSM]
    config: Callable[..., Config]
    tensors: Callable[..., dict[str, Array]]
    holds: Callable[[Any], bool] = lambda layer: True
    """Whether this kind can store the `layer`."""


KINDS: dict[str, Kind] = {
    "mamba": Kind(
        Mamba,
        MixerBlock,
        BACKBONE,
        "MambaForCausalLM",
        hugging_face.MAMBA_DEFAULTS,
        hugging_face.mamba_shapes,
        hugging_face.mamba_from,
        hugging_face.mamba_config,
        hugging_face.mamba_tensors,
    ),
    "mamba2": Kind(
        Mamba2,
        MixerBlock,
        BACKBONE,
        "Mamba2ForCausalLM",
        hugging_face.MAMBA2_DEFAULTS,
        hugging_face.mamba2_shapes,
        hugging_face.mamba2_from,
        hugging_face.mamba2_config,
        hugging_face.mamba2_tensors,
        lambda layer: not layer.has_maps,
    ),
    # transformers does not know this one, and so does not read it without its maps
    "mamba2_mapped": Kind(
        Mamba2,
        MixerBlock,
        BACKBONE,
        "MappedMamba2ForCausalLM",
        hugging_face.MAMBA2_DEFAULTS | {"mapped_state_size": 64},
        hugging_face.mapped_mamba2_shapes,
        hugging_face.mamba2_from,
        hugging_face.mapped_mamba2_config,
        hugging_face.mamba2_tensors,
        lambda layer: layer.has_maps,
    ),
    "delta_net": Kind(
        DeltaNet,
        MLPBlock,
        FLA,
        "DeltaNetForCausalLM",
        fla.DELTA_NET_DEFAULTS,
        fla.delta_net_shapes,
        fla.delta_net_from,
        fla.delta_net_config,
        fla.delta_net_tensors,
        lambda layer: not fla.has_maps(layer),
    ),
    "gated_deltanet": Kind(
        GatedDeltaNet,
        MLPBlock,
        FLA,
        "GatedDeltaNetForCausalLM",
        fla.GATED_DELTANET_DEFAULTS,
        fla.gated_deltanet_shapes,
        fla.gated_deltanet_from,
        fla.gated_deltanet_config,
        fla.gated_deltanet_tensors,
        lambda layer: not fla.has_maps(layer),
    ),
    # flash-linear-attention does not know these, and so does not read them without their maps
    "delta_net_mapped": Kind(
        DeltaNet,
        MLPBlock,
        FLA,
        "MappedDeltaNetForCausalLM",
        fla.DELTA_NET_DEFAULTS | {"mapped_key_dim": 128},
        fla.mapped(fla.delta_net_shapes),
        fla.delta_net_from,
        fla.mapped_config(fla.delta_net_config),
        fla.delta_net_tensors,
        fla.has_maps,
    ),
    "gated_deltanet_mapped": Kind(
        GatedDeltaNet,
        MLPBlock,
        FLA,
        "MappedGatedDeltaNetForCausalLM",
        fla.GATED_DELTANET_DEFAULTS | {"mapped_key_dim": 256},
        fla.mapped(fla.gated_deltanet_shapes),
        fla.gated_deltanet_from,
        fla.mapped_config(fla.gated_deltanet_config),
        fla.gated_deltanet_tensors,
        fla.has_maps,
    ),
}

MLP = ("gate_proj", "up_proj", "down_proj")


@checked
def model_shapes(kind: Kind, config: Config) -> Shapes:
    """All tensors of a model; `lm_head.weight` only if it is not tied to the embedding."""
    V, H, names = config["vocab_size"], config["hidden_size"], kind.names
    shapes: Shapes = {names.embedding: (V, H), names.norm: (H,)}
    for i in range(config["num_hidden_layers"]):
        prefix = names.block.format(i)
        shapes[prefix + names.block_norm] = (H,)
        shapes |= {
            f"{prefix}{names.layer}{name}": shape for name, shape in kind.shapes(config).items()
        }
        if kind.block is MLPBlock:
            shapes[f"{prefix}mlp_norm.weight"] = (H,)
            for name in MLP:
                size = fla.mlp_size(config)
                shape = (H, size) if name == "down_proj" else (size, H)
                shapes[f"{prefix}mlp.{name}.weight"] = shape
    return shapes if config["tie_word_embeddings"] else shapes | {"lm_head.weight": (V, H)}


@checked
def model_from(kind: Kind, config: Config, tensors: Tensors) -> LanguageModel:
    """The model of these tensors, called as in `model_shapes`."""
    names, epsilon = kind.names, config[kind.names.epsilon]
    blocks = []
    for i in range(config["num_hidden_layers"]):
        prefix = names.block.format(i)
        own = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
        layer = {
            k.removeprefix(names.layer): x for k, x in own.items() if k.startswith(names.layer)
        }
        parts = {
            "norm": _norm(own[names.block_norm], epsilon),
            "ssm": kind.build(config, layer),
            "dropout": Dropout(0.0),
        }
        if kind.block is MLPBlock:
            mlp = SwiGLU(*(Linear(own[f"mlp.{name}.weight"]) for name in MLP))
            mlp_norm = _norm(own["mlp_norm.weight"], epsilon)
            blocks.append(MLPBlock(**parts, mlp_norm=mlp_norm, mlp=mlp))
        else:
            blocks.append(MixerBlock(**parts))
    return LanguageModel(
        embedding=eqx.nn.Embedding(weight=tensors[names.embedding]),
        blocks=tuple(blocks),
        norm=_norm(tensors[names.norm], epsilon),
        head=None if config["tie_word_embeddings"] else Linear(tensors["lm_head.weight"]),
    )


@checked
def model_tensors(kind: Kind, model: LanguageModel) -> dict[str, Array]:
    """Inverse of `model_from`."""
    names = kind.names
    tensors = {
        names.embedding: model.embedding.weight,
        names.norm: _weight(model.norm.norm),
    }
    for i, block in enumerate(model.blocks):
        prefix = names.block.format(i)
        norm, layer = block.streamed()
        tensors[prefix + names.block_norm] = _weight(norm)
        for name, x in kind.tensors(layer).items():
            tensors[f"{prefix}{names.layer}{name}"] = x
        if isinstance(block, MLPBlock):
            tensors[f"{prefix}mlp_norm.weight"] = _weight(block.mlp_norm.norm)
            for name in MLP:
                tensors[f"{prefix}mlp.{name}.weight"] = getattr(block.mlp, name).weight
    return tensors if model.head is None else tensors | {"lm_head.weight": model.head.weight}


@checked
def sizes_of(block: AbstractBlock) -> Config:
    """The settings of the part of `block` that follows the layer."""
    if isinstance(block, MLPBlock):
        return {"intermediate_size": block.mlp.up_proj.weight.shape[0]}
    return {}


@checked
def norms_of(model: LanguageModel) -> list[eqx.nn.LayerNorm | eqx.nn.RMSNorm | FixedNorm]:
    """The norms of all blocks, and the norm after them."""
    after = [block.mlp_norm.norm for block in model.blocks if isinstance(block, MLPBlock)]
    return [model.norm.norm, *(block.streamed()[0] for block in model.blocks), *after]


def _norm(weight: Array, epsilon: float) -> SampleNorm:
    norm = eqx.nn.RMSNorm(len(weight), eps=epsilon, use_bias=False)
    return SampleNorm(eqx.tree_at(lambda norm: norm.weight, norm, weight))


def _weight(norm: Any) -> Array:
    assert isinstance(norm, eqx.nn.RMSNorm)
    assert norm.weight is not None
    return norm.weight
