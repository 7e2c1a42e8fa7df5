"""In-training compression of state-space models by balanced truncation.

    from compress import Data, Rank, compress, plan, verify

    print(plan(model))                                # what would happen: a table, layer by layer
    model, opt_state = compress(model, opt_state)     # do it
    model, opt_state = compress(
        model, opt_state, policy=Rank(16), method=Data(batch=x)
    )

`model` is any pytree that holds layers of `zoo` (or of your own, see `register_family`), single or
stacked; `opt_state` the state of its optax optimizer, or None. Both come back smaller, as new
values: nothing is changed in place. Compiled functions compile again for the new shapes.

A shrink has four parts:

- A **method** gives each state of a layer a value. `WhiteNoise` (the default) takes the layer's
  Hankel singular values, which bound the error of the cut. `Data` measures the states on a batch;
  Mamba and linear attention need it. `Horizon` takes Gramians over a finite time. `H2Optimal`
  searches the nearest system in the H2 norm.
- A **policy** decides how many states stay: `Tolerance(0.01)` (the default) drops a hundredth of
  the sum of the values; `Rank`, `Ranks`, `Energy`, `Fraction`, `ErrorBudget`, `GlobalBudget` and
  `LossBudget` are others. `.rounded(8)` and `.gated(0.95)` modify any of them.
- The **cut** makes the smaller layer, of the same class.
- The optimizer's state is **carried** into the basis of the smaller layer. The class of a state
  declares the meaning of its fields (`register_state`).

`verify(before, after)` measures the error of a cut and compares it with the bound.
`balanced_truncation`, `optimal_reduction`, `hankel_singular_values`, `error_bound`, `hinf_error`
and `h2_error` do the same for a single system, a `zoo.DiagonalLTI`.

Source: Chahine, Nazari, Rus, Rusch, ICLR 2026, arXiv 2510.02823.
"""

from typing import TYPE_CHECKING

from .numerics import names  # noqa: F401  (first: it says so if `zoo` is not ours)

# isort: split

from zoo.lazy import lazily

if TYPE_CHECKING:
    from .analysis.verify import Certificate, Verification, hinf_error, verify
    from .analysis.whole_model import whole_model
    from .cut import AbstractCut
    from .families import Family, family_of, register_family
    from .linear.balance import Truncation, balanced_truncation
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
    from .policies.dial import Dial
    from .shrink import compress, plan
    from .shrink.auto import Look, auto

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

__version__ = "0.1.0"
"""The version of the distribution compressm-zoo, which holds the four packages."""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


_PLACES = {
    ".analysis.verify": "Certificate Verification hinf_error verify",
    ".analysis.whole_model": "whole_model",
    ".cut": "AbstractCut",
    ".families": "Family family_of register_family",
    ".linear.balance": "Truncation balanced_truncation",
    ".linear.h2": "h2_error optimal_reduction",
    ".linear.hankel": "error_bound hankel_singular_values",
    ".linear.spectrum": "LinearSpectrum",
    ".linear.weighing": "Weighing",
    ".methods": (
        "AbstractLinearMethod AbstractMethod Data H2Optimal Horizon RandomValues "
        "SmallestValues WhiteNoise"
    ),
    ".methods.impulse": "ImpulseEnergy",
    ".methods.last": "LAST",
    ".methods.modal": "AbstractModalMethod",
    ".model.record": "LayerData layer_inputs output_gradients",
    ".optimizer.registry": "register_state",
    ".plans": "AbstractSpectrum LayerPlan Plan",
    ".policies": (
        "AbstractJointPolicy AbstractLayerPolicy AbstractPolicy AcrossLayers Alike Energy "
        "ErrorBudget Fraction GlobalBudget Jointly Largest LossBudget PerLayer Rank Ranks "
        "ShallowFirst Smallest Tolerance"
    ),
    ".policies.dial": "Dial",
    ".shrink": "compress plan",
    ".shrink.auto": "Look auto",
}
"""Where each public name is made."""

__getattr__ = lazily(__name__, _PLACES, ".shrink.known")  # the families of layers are known then
