"""Linear time-invariant layers, as `compress` sees them."""

from typing import Any

from zoo import AbstractSSM, DiagonalLTI

from ..families import Family
from ..model.record import LayerData
from .hankel import Form
from .spectrum import LinearSpectrum
from .system import double_lti
from .weighing import on_data


def _on_data(
    name: str,
    layer: AbstractSSM,
    data: LayerData,
    *,
    states: bool,
    refit: bool | None,
    form: Form,
    maps: bool | None,
) -> LinearSpectrum:
    weighing = on_data(data, states=states, fitted=bool(refit), form=form)
    return LinearSpectrum(name, layer, weighing)


def _system(layer: AbstractSSM, data: Any) -> DiagonalLTI:
    return double_lti(layer)


LINEAR = Family(on_data=_on_data, needs_data=False, has_bound=True, system=_system)
