"""Policies: frozen values that turn the layers' spectra into ranks.

    compress(model, opt_state, policy=Tolerance(0.01).rounded(8).gated(0.9))

A spectrum holds the descending values `sigma` of one layer, one for each state. Most policies look
at one layer at a time: `Tolerance`, `Energy`, `ErrorBudget`, `Fraction`, `Rank`, `PerLayer`, and
`Smallest` and `Largest` of several. `GlobalBudget`, `LossBudget`, `Alike` and `Jointly` look at all
layers at once; so do `AcrossLayers` and `ShallowFirst`, for comparison. `Ranks` gives a rank for
each layer.

All of them except `Rank` and `Ranks` never split a tie: values that are equal belong to one
subspace (a conjugate pair, a symmetry of the system), of which a cut would keep an arbitrary part.
All respect `gate`: a layer stays unchanged unless its rank is below this share of the old one.

For the real map (form="real", and all methods on data) a state's value is the sum of two Hankel
singular values, those of a conjugate pair of modes. A state that is a real mode holds only one of
the two, which is known only when the cut has been made. The ranks of `Tolerance` and `ErrorBudget`
are then raised until what is dropped is within the budget; a rank of any other policy is taken as
it is, and drops up to one value more for each real mode.

A policy of your own derives from `AbstractLayerPolicy` and defines `rank(sigma)`, or from
`AbstractJointPolicy` and defines `choose(sigmas, cut)`.
"""

from .base import AbstractJointPolicy, AbstractLayerPolicy, AbstractPolicy
from .joint import Alike, GlobalBudget, Jointly, LossBudget, Ranks
from .layer import (
    Energy,
    ErrorBudget,
    Fraction,
    Largest,
    PerLayer,
    Rank,
    Smallest,
    Tolerance,
)
from .rivals import AcrossLayers, ShallowFirst

__all__ = [
    "AbstractJointPolicy",
    "AbstractLayerPolicy",
    "AbstractPolicy",
    "AcrossLayers",
    "Alike",
    "Energy",
    "ErrorBudget",
    "Fraction",
    "GlobalBudget",
    "Jointly",
    "Largest",
    "LossBudget",
    "PerLayer",
    "Rank",
    "Ranks",
    "ShallowFirst",
    "Smallest",
    "Tolerance",
]
