"""State-space models as immutable Equinox modules, with one interface to linear systems."""

from .layer import AbstractSSM
from .lru import LRU
from .lti import DiagonalLTI

__all__ = ["LRU", "AbstractSSM", "DiagonalLTI"]
