"""In-training compression of state-space models by balanced truncation."""

from . import policies as rank
from .analysis.verify import Certificate, Verification, hinf_error, verify
from .linear.balance import Truncation, balanced_truncation
from .linear.h2 import h2_error, optimal_reduction
from .linear.hankel import error_bound, hankel_singular_values
from .linear.spectrum import LayerPlan
from .model.record import layer_inputs, output_gradients
from .shrink import Plan, compress, plan

__all__ = [
    "Certificate",
    "LayerPlan",
    "Plan",
    "Truncation",
    "Verification",
    "balanced_truncation",
    "compress",
    "error_bound",
    "h2_error",
    "hankel_singular_values",
    "hinf_error",
    "layer_inputs",
    "optimal_reduction",
    "output_gradients",
    "plan",
    "rank",
    "verify",
]
