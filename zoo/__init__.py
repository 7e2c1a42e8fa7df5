"""State-space models as immutable Equinox modules, with one interface to linear systems."""

from .bidirectional import Bidirectional
from .layer import AbstractLinearSSM, AbstractSelectiveSSM, AbstractSSM
from .lru import LRU
from .lti import DiagonalLTI
from .mamba import Mamba
from .model import BATCH_AXIS, Classifier, classifier
from .recurrence import linear_recurrence, lti_apply, lti_step
from .registry import LAYERS, LRUConfig, S5Config, layer_config
from .s5 import S5
from .selective import selective_scan

__all__ = [
    "BATCH_AXIS",
    "LAYERS",
    "LRU",
    "S5",
    "AbstractLinearSSM",
    "AbstractSSM",
    "AbstractSelectiveSSM",
    "Bidirectional",
    "Classifier",
    "DiagonalLTI",
    "LRUConfig",
    "Mamba",
    "S5Config",
    "classifier",
    "layer_config",
    "linear_recurrence",
    "lti_apply",
    "lti_step",
    "selective_scan",
]
