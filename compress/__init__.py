"""In-training compression of state-space models by balanced truncation."""

from . import rank
from .balance import Truncation, balanced_truncation
from .empirical import layer_inputs
from .hankel import error_bound, hankel_singular_values
from .shrink import LayerPlan, Plan, compress, plan
from .verify import hinf_error

__all__ = [
    "LayerPlan",
    "Plan",
    "Truncation",
    "balanced_truncation",
    "compress",
    "error_bound",
    "hankel_singular_values",
    "hinf_error",
    "layer_inputs",
    "plan",
    "rank",
]
