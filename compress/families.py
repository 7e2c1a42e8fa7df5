"""The registry of families of layers. A family is a base class of layers, such as linear
time-invariant ones (`compress.linear`) or those of Mamba (`compress.selective`). It determines how
a layer is weighed, cut and carried. Only the family's own files test for the class of a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo import AbstractSSM
from zoo.typing import checked

from .plans import AbstractSpectrum


@dataclass(frozen=True)
class Family:
    """The functions of a family of layers that `compress` uses."""

    on_data: Callable[..., AbstractSpectrum]
    """`on_data(name, layer, data, states=, refit=, form=, maps=)`: the spectrum of the layer on
    `LayerData`; the settings are those of the method `Data`."""
    needs_data: bool
    """Whether its layers can be weighed by data only."""
    has_bound: bool
    """Whether theory bounds the error of a cut, so that `verify` can certify it."""
    system: Callable[..., Any] | None
    """`system(layer, data)`: the system whose Hankel operator is the layer's, to follow its values
    over time; None if values are not followed."""
    has_maps: Callable[..., bool] = lambda layer: False
    """Whether `layer` has maps from its inputs to the states that are kept as parameters."""
    with_maps: Callable[..., Any] = lambda layer: layer
    """`layer` with such maps, which are the identity at first."""
    weighed: Callable[..., AbstractSpectrum] | None = None
    """`weighed(name, layer, weighing)`: the layer by Gramians of its own system, a
    `compress.Weighing`; None if there is no such system."""
    is_one_system: bool = True
    """Whether its layers, if they are linear, are one system each."""


@checked
def register_family(base: type[AbstractSSM], family: Family) -> None:
    """Register `family` for all layers that derive from `base`.

    ValueError if `base` has one already.
    """
    if base in _FAMILIES:
        raise ValueError(f"`base` must be a class without a family, got {base.__name__}")
    _FAMILIES[base] = family


@checked
def family_of(layer: AbstractSSM) -> Family:
    """The family of `layer`: that of its nearest base class. ValueError if it has none."""
    for base in type(layer).__mro__:
        if base in _FAMILIES:
            return _FAMILIES[base]
    known = ", ".join(base.__name__ for base in _FAMILIES)
    raise ValueError(
        f"a {type(layer).__name__} must derive from {known} (or from a class given to "
        f"`compress.register_family`), got bases {', '.join(_bases(layer))}"
    )


_FAMILIES: dict[type, Family] = {}


def _bases(layer: AbstractSSM) -> list[str]:
    return [base.__name__ for base in type(layer).__bases__]
