"""In-training compression of state-space models by balanced truncation."""

from . import rank
from .balance import Truncation, balanced_truncation
from .hankel import error_bound, hankel_singular_values
from .optimal import h2_error, optimal_reduction
from .record import layer_inputs, output_gradients
from .shrink import Plan, compress, plan
from .spectrum import LayerPlan
from .verify import Certificate, Verification, hinf_error, verify

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
