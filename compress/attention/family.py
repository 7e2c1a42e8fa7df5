"""The family of linear attention layers."""

from typing import Any

from zoo import AbstractLinearAttention

from ..families import Family
from ..model.record import LayerData
from .spectrum import AttentionSpectrum


def _on_data(
    name: str,
    layer: AbstractLinearAttention,
    data: LayerData,
    *,
    states: bool,
    refit: bool | None,
    form: Any,
    maps: bool | None,
) -> AttentionSpectrum:
    for setting, value, allowed in (("states", states, True), ("refit", bool(refit), False)):
        if value != allowed:
            raise ValueError(
                f"`{setting}` must be {allowed} for {name}, a {type(layer).__name__}, got {value}"
            )
    return AttentionSpectrum(name, layer, data, maps=maps)


ATTENTION = Family(
    on_data=_on_data,
    needs_data=True,
    has_bound=False,
    system=None,
    has_maps=lambda layer: layer.qkv.maps is not None,
    with_maps=lambda layer: layer.with_maps(),
)
