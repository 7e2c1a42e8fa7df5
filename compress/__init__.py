"""In-training compression of state-space models by balanced truncation.

    model, opt_state = compress(model, opt_state)
    model, opt_state = compress(model, opt_state, policy=Rank(16), method=Data(batch=x))

A shrink has four parts. A **method** weighs the states of each layer (`WhiteNoise`, `Data`,
`Horizon`, `H2Optimal`). A **policy** decides how many stay (`Tolerance`, `Rank`, `GlobalBudget` and
others). The cut makes the smaller layer, and the optimizer's state is carried along. `plan` says
beforehand what would happen, `verify` measures the error afterwards.
"""

from .numerics import names  # noqa: F401  (first: it says so if `zoo` is not ours)

# isort: split

from zoo import AbstractLinearSSM, AbstractMambaSSM

from .analysis.verify import Certificate, Verification, hinf_error, verify
from .analysis.whole_model import whole_model
from .cut import AbstractCut
from .families import Family, family_of, register_family
from .linear.balance import Truncation, balanced_truncation
from .linear.family import LINEAR
from .linear.h2 import h2_error, optimal_reduction
from .linear.hankel import error_bound, hankel_singular_values
from .linear.spectrum import LinearSpectrum
from .linear.weighing import Weighing
from .methods import (
    AbstractLinearMethod,
    AbstractMethod,
    Data,
    H2Optimal,
    Horizon,
    RandomValues,
    SmallestValues,
    WhiteNoise,
)
from .methods.impulse import ImpulseEnergy
from .methods.last import LAST
from .methods.modal import AbstractModalMethod
from .model.record import LayerData, layer_inputs, output_gradients
from .optimizer.registry import register_state
from .plans import AbstractSpectrum, LayerPlan, Plan
from .policies import (
    AbstractJointPolicy,
    AbstractLayerPolicy,
    AbstractPolicy,
    AcrossLayers,
    Alike,
    Energy,
    ErrorBudget,
    Fraction,
    GlobalBudget,
    Jointly,
    Largest,
    LossBudget,
    PerLayer,
    Rank,
    Ranks,
    ShallowFirst,
    Smallest,
    Tolerance,
)
from .policies.automatic import Dial
from .selective.family import MAMBA
from .shrink import compress, plan
from .shrink.auto import Look, auto

register_family(AbstractLinearSSM, LINEAR)
register_family(AbstractMambaSSM, MAMBA)

__all__ = [
    "LAST",
    "AbstractCut",
    "AbstractJointPolicy",
    "AbstractLayerPolicy",
    "AbstractLinearMethod",
    "AbstractMethod",
    "AbstractModalMethod",
    "AbstractPolicy",
    "AbstractSpectrum",
    "AcrossLayers",
    "Alike",
    "Certificate",
    "Data",
    "Dial",
    "Energy",
    "ErrorBudget",
    "Family",
    "Fraction",
    "GlobalBudget",
    "H2Optimal",
    "Horizon",
    "ImpulseEnergy",
    "Jointly",
    "Largest",
    "LayerData",
    "LayerPlan",
    "LinearSpectrum",
    "Look",
    "LossBudget",
    "PerLayer",
    "Plan",
    "RandomValues",
    "Rank",
    "Ranks",
    "ShallowFirst",
    "Smallest",
    "SmallestValues",
    "Tolerance",
    "Truncation",
    "Verification",
    "Weighing",
    "WhiteNoise",
    "auto",
    "balanced_truncation",
    "compress",
    "error_bound",
    "family_of",
    "h2_error",
    "hankel_singular_values",
    "hinf_error",
    "layer_inputs",
    "optimal_reduction",
    "output_gradients",
    "plan",
    "register_family",
    "register_state",
    "verify",
    "whole_model",
]
