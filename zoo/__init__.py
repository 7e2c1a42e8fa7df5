"""State-space models as immutable Equinox modules, with one interface to linear systems."""

from .bidirectional import Bidirectional
from .layer import AbstractSSM
from .lru import LRU
from .lti import DiagonalLTI
from .model import BATCH_AXIS, Classifier, classifier
from .recurrence import linear_recurrence, lti_apply, lti_step
from .registry import LAYERS, LRUConfig, S5Config, layer_config
from .s5 import S5

__all__ = [
    "BATCH_AXIS",
    "LAYERS",
    "LRU",
    "S5",
    "AbstractSSM",
    "Bidirectional",
    "Classifier",
    "DiagonalLTI",
    "LRUConfig",
    "S5Config",
    "classifier",
    "layer_config",
    "linear_recurrence",
    "lti_apply",
    "lti_step",
]
