"""State-space models as immutable Equinox modules, with one interface to linear systems.

    layer = LRU.init(d_model=32, d_state=64, key=jax.random.key(0))
    y = layer(u)                                # u: [length, d_model]; batches by jax.vmap
    carry, y = layer.run(layer.init_state(), u)      # the same, in pieces
    layer.to_lti()                              # its linear system

    model, state = classifier(lambda key: LRUConfig(64).build(32, key=key), ...)

`LAYERS` maps names to the configuration classes of all layers. `register_layer` adds your own.
`classifier`, `pair_classifier`, `regressor` and `language_model` build networks around them.
`zoo.pretrained` reads and writes checkpoints in Hugging Face's format.
"""

from typing import TYPE_CHECKING

from .lazy import lazily

if TYPE_CHECKING:
    from .layers.attention_family import AbstractLinearAttention
    from .layers.base import (
        AbstractBankSSM,
        AbstractBothWaysSSM,
        AbstractLinearSSM,
        AbstractSelectiveSSM,
        AbstractSSM,
        AbstractTimedSSM,
    )
    from .layers.deltanet import DeltaNet, DeltaNetConfig
    from .layers.gated_deltanet import GatedDeltaNet, GatedDeltaNetConfig
    from .layers.gla import GLA, GLAConfig
    from .layers.linoss import DLinOSSConfig, LinOSS, LinOSSConfig
    from .layers.lru import LRU, LRUConfig
    from .layers.mamba import Mamba, MambaConfig
    from .layers.mamba2 import Mamba2, Mamba2Config
    from .layers.mamba_family import AbstractMambaSSM
    from .layers.retnet import RetNet, RetNetConfig
    from .layers.s4d import S4D, S4DConfig
    from .layers.s5 import S5
    from .layers.s5_both_ways import S5BothWays
    from .layers.s5_config import S5Config
    from .lti import DiagonalLTI
    from .network.along_length import ShardedAlongLength, sharded_along_length
    from .network.attention import WindowAttention
    from .network.bidirectional import Bidirectional
    from .network.classifier import Classifier, classifier
    from .network.language_model import LanguageModel, language_model
    from .network.norm import BATCH_AXIS, fixed_norms
    from .network.pair import PairClassifier, pair_classifier
    from .network.precision import in_precision
    from .network.quantized import quantize
    from .network.regressor import Regressor, regressor
    from .network.scanned import ScannedModel, scanned
    from .pretrained.generate import generate
    from .recurrence.attention import attention_scan
    from .recurrence.bank import bank_apply, bank_step
    from .recurrence.linear import linear_recurrence, lti_apply, lti_step
    from .recurrence.selective import selective_scan
    from .recurrence.ssd import ssd_scan
    from .registry import (
        LAYERS,
        LayerConfig,
        layer_config,
        register_layer,
    )

__all__ = [
    "BATCH_AXIS",
    "GLA",
    "LAYERS",
    "LRU",
    "S4D",
    "S5",
    "AbstractBankSSM",
    "AbstractBothWaysSSM",
    "AbstractLinearAttention",
    "AbstractLinearSSM",
    "AbstractMambaSSM",
    "AbstractSSM",
    "AbstractSelectiveSSM",
    "AbstractTimedSSM",
    "Bidirectional",
    "Classifier",
    "DLinOSSConfig",
    "DeltaNet",
    "DeltaNetConfig",
    "DiagonalLTI",
    "GLAConfig",
    "GatedDeltaNet",
    "GatedDeltaNetConfig",
    "LRUConfig",
    "LanguageModel",
    "LayerConfig",
    "LinOSS",
    "LinOSSConfig",
    "Mamba",
    "Mamba2",
    "Mamba2Config",
    "MambaConfig",
    "PairClassifier",
    "Regressor",
    "RetNet",
    "RetNetConfig",
    "S4DConfig",
    "S5BothWays",
    "S5Config",
    "ScannedModel",
    "ShardedAlongLength",
    "WindowAttention",
    "attention_scan",
    "bank_apply",
    "bank_step",
    "classifier",
    "fixed_norms",
    "generate",
    "in_precision",
    "language_model",
    "layer_config",
    "linear_recurrence",
    "lti_apply",
    "lti_step",
    "pair_classifier",
    "quantize",
    "register_layer",
    "regressor",
    "scanned",
    "selective_scan",
    "sharded_along_length",
    "ssd_scan",
]

__version__ = "0.1.0"
"""The version of the distribution compressm-zoo, which holds the four packages."""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


_PLACES = {
    ".layers.attention_family": "AbstractLinearAttention",
    ".layers.base": (
        "AbstractBankSSM AbstractBothWaysSSM AbstractLinearSSM AbstractSelectiveSSM "
        "AbstractSSM AbstractTimedSSM"
    ),
    ".layers.deltanet": "DeltaNet DeltaNetConfig",
    ".layers.gated_deltanet": "GatedDeltaNet GatedDeltaNetConfig",
    ".layers.gla": "GLA GLAConfig",
    ".layers.linoss": "DLinOSSConfig LinOSS LinOSSConfig",
    ".layers.lru": "LRU LRUConfig",
    ".layers.mamba": "Mamba MambaConfig",
    ".layers.mamba2": "Mamba2 Mamba2Config",
    ".layers.mamba_family": "AbstractMambaSSM",
    ".layers.retnet": "RetNet RetNetConfig",
    ".layers.s4d": "S4D S4DConfig",
    ".layers.s5": "S5",
    ".layers.s5_both_ways": "S5BothWays",
    ".layers.s5_config": "S5Config",
    ".lti": "DiagonalLTI",
    ".network.along_length": "ShardedAlongLength sharded_along_length",
    ".network.attention": "WindowAttention",
    ".network.bidirectional": "Bidirectional",
    ".network.classifier": "Classifier classifier",
    ".network.language_model": "LanguageModel language_model",
    ".network.norm": "BATCH_AXIS fixed_norms",
    ".network.pair": "PairClassifier pair_classifier",
    ".network.precision": "in_precision",
    ".network.quantized": "quantize",
    ".network.regressor": "Regressor regressor",
    ".network.scanned": "ScannedModel scanned",
    ".pretrained.generate": "generate",
    ".recurrence.attention": "attention_scan",
    ".recurrence.bank": "bank_apply bank_step",
    ".recurrence.linear": "linear_recurrence lti_apply lti_step",
    ".recurrence.selective": "selective_scan",
    ".recurrence.ssd": "ssd_scan",
    ".registry": "LAYERS LayerConfig layer_config register_layer",
}
"""Where each public name is made."""

__getattr__ = lazily(__name__, _PLACES)
