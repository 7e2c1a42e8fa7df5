"""The family of Mamba layers."""

from typing import Any

from zoo import AbstractMambaSSM

from ..families import Family
from ..model.record import LayerData
from .operator import SampledStates, sampled_states
from .spectrum import SelectiveSpectrum


def _on_data(
    name: str,
    layer: AbstractMambaSSM,
    data: LayerData,
    *,
    states: bool,
    refit: bool | None,
    form: Any,
    maps: bool | None,
) -> SelectiveSpectrum:
    if not states:
        raise ValueError(f"`states` must be True for {name}, a {type(layer).__name__}, got False")
    return SelectiveSpectrum(name, layer, data, refit=refit, maps=bool(maps))


def _system(layer: AbstractMambaSSM, data: LayerData | None) -> SampledStates:
    if data is None:
        raise ValueError(f"`data` must be given for a {type(layer).__name__}, got None")
    return sampled_states(layer, data.inputs, data.gradients, data.lengths)


MAMBA = Family(
    on_data=_on_data,
    needs_data=True,
    has_bound=False,
    system=_system,
    has_maps=lambda layer: layer.has_maps,
    with_maps=lambda layer: layer.with_maps(),
)
