"""The registry of layers: names, and the dataclass that configures each layer."""

import dataclasses
import difflib
import keyword
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import PRNGKeyArray

from .layers.base import AbstractSSM
from .layers.deltanet import DeltaNetConfig
from .layers.gated_deltanet import GatedDeltaNetConfig
from .layers.gla import GLAConfig
from .layers.linoss import DLinOSSConfig, LinOSSConfig
from .layers.lru import LRUConfig
from .layers.mamba import MambaConfig
from .layers.mamba2 import Mamba2Config
from .layers.retnet import RetNetConfig
from .layers.s4d import S4DConfig
from .layers.s5_config import S5Config
from .typing import checked


@runtime_checkable
class LayerConfig(Protocol):
    """Settings of a kind of layer, a frozen dataclass; `build` makes one."""

    states_per_channel: ClassVar[bool]
    """Whether `d_state` counts the states of each channel (Mamba) or of the whole layer (LRU)."""

    @property
    def d_state(self) -> int: ...

    def build(self, d_model: int, *, key: PRNGKeyArray) -> AbstractSSM: ...


_layers: dict[str, type[Any]] = {
    "lru": LRUConfig,
    "s5": S5Config,
    "s4d": S4DConfig,
    "linoss": LinOSSConfig,
    "d_linoss": DLinOSSConfig,
    "mamba": MambaConfig,
    "mamba2": Mamba2Config,
    "gla": GLAConfig,
    "retnet": RetNetConfig,
    "deltanet": DeltaNetConfig,
    "gated_deltanet": GatedDeltaNetConfig,
}

LAYERS: Mapping[str, type[Any]] = MappingProxyType(_layers)
"""The configuration class of every layer by its name: a read-only view; `register_layer` adds
entries."""


@checked
def register_layer(name: str, config_class: Any) -> None:
    """Register a layer under `name`, which the command line's --model then accepts.

    `config_class` is a frozen dataclass like `LRUConfig`: a field `d_state`, defaults for all other
    fields, the ClassVar `states_per_channel`, and `build(d_model, *, key)`, which makes the layer.
    ValueError if the name or the class is not valid.
    """
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name):
        raise ValueError(f"`name` must be a lower-case identifier, got {name!r}")
    if name in _layers:
        raise ValueError(f"`name` must be a new one, got {name!r}, a {_layers[name].__name__}")
    if problem := _problem(config_class):
        raise ValueError(f"`config_class` must {problem}, got {config_class!r}")
    _layers[name] = config_class


@checked
def layer_config(name: str) -> type[Any]:
    """The configuration class of the layer called `name`; a ValueError lists the names."""
    if name not in LAYERS:
        near = difflib.get_close_matches(name, LAYERS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`model` must be one of {', '.join(sorted(LAYERS))}, got {name!r}{hint}")
    return LAYERS[name]


def _problem(config_class: Any) -> str | None:
    """The requirement that a configuration class does not meet; None if it meets all."""
    settings = getattr(config_class, "__dataclass_params__", None)
    if not isinstance(config_class, type) or settings is None or not settings.frozen:
        return "be a frozen dataclass"
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    if "d_state" not in fields:
        return "have a field `d_state`"
    missing = dataclasses.MISSING
    for field in fields.values():
        is_given = field.default is not missing or field.default_factory is not missing
        if field.init and not is_given and field.name != "d_state":
            return f"have a default for its field `{field.name}`"
    if not callable(getattr(config_class, "build", None)):
        return "have a method `build(d_model, *, key)`"
    if not isinstance(getattr(config_class, "states_per_channel", None), bool):
        return "have a ClassVar `states_per_channel`, True or False"
    return None
