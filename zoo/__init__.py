"""State-space models as immutable Equinox modules, with one interface to linear systems."""

from .bidirectional import Bidirectional
from .generate import generate
from .language_model import LanguageModel, language_model
from .layer import AbstractLinearSSM, AbstractSelectiveSSM, AbstractSSM, AbstractTimedSSM
from .lru import LRU
from .lti import DiagonalLTI
from .mamba import Mamba
from .mamba2 import Mamba2
from .model import Classifier, classifier
from .norm import BATCH_AXIS
from .pair import PairClassifier, pair_classifier
from .recurrence import linear_recurrence, lti_apply, lti_step
from .registry import (
    LAYERS,
    LayerConfig,
    LRUConfig,
    Mamba2Config,
    MambaConfig,
    S5Config,
    layer_config,
)
from .regressor import Regressor, regressor
from .s5 import S5
from .selective import selective_scan
from .ssd import ssd_scan

__all__ = [
    "BATCH_AXIS",
    "LAYERS",
    "LRU",
    "S5",
    "AbstractLinearSSM",
    "AbstractSSM",
    "AbstractSelectiveSSM",
    "AbstractTimedSSM",
    "Bidirectional",
    "Classifier",
    "DiagonalLTI",
    "LRUConfig",
    "LanguageModel",
    "LayerConfig",
    "Mamba",
    "Mamba2",
    "Mamba2Config",
    "MambaConfig",
    "PairClassifier",
    "Regressor",
    "S5Config",
    "classifier",
    "generate",
    "language_model",
    "layer_config",
    "linear_recurrence",
    "lti_apply",
    "lti_step",
    "pair_classifier",
    "regressor",
    "selective_scan",
    "ssd_scan",
]
