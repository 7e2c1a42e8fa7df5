"""The layers by name, each with the dataclass that configures it."""

from dataclasses import dataclass
from math import pi
from typing import Protocol

from jaxtyping import PRNGKeyArray

from .discretize import Discretization
from .layer import AbstractSSM
from .lru import LRU
from .s5 import S5


class LayerConfig(Protocol):
    """Settings of a kind of layer; `build` makes one."""

    @property
    def d_state(self) -> int: ...

    def build(self, d_model: int, *, key: PRNGKeyArray) -> AbstractSSM: ...


@dataclass(frozen=True)
class LRUConfig:
    """Linear recurrent unit (Orvieto et al. 2023)."""

    d_state: int = 64
    """Complex states N of each layer at the start."""
    r_min: float = 0.9
    """Smallest modulus of an eigenvalue at the start."""
    r_max: float = 0.999
    """Largest modulus of an eigenvalue at the start; below 1."""
    max_phase: float = 2 * pi
    """Largest angle of an eigenvalue at the start [rad/sample]."""

    def __post_init__(self):
        _check_positive("d_state", self.d_state)

    def build(self, d_model: int, *, key: PRNGKeyArray) -> AbstractSSM:
        return LRU.init(
            d_model,
            self.d_state,
            key=key,
            r_min=self.r_min,
            r_max=self.r_max,
            max_phase=self.max_phase,
        )


@dataclass(frozen=True)
class S5Config:
    """Simplified state-space layer (Smith et al. 2023)."""

    d_state: int = 64
    """Complex states N of each layer at the start: one of each conjugate pair."""
    hippo_blocks: int = 1
    """HiPPO-LegS-N matrices on the diagonal; must divide d_state."""
    step_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    step_max: float = 1e-1
    """Largest step size at the start [samples]."""
    discretization: Discretization = "zoh"
    """How continuous time becomes samples."""

    def __post_init__(self):
        _check_positive("d_state", self.d_state)
        if self.hippo_blocks < 1 or self.d_state % self.hippo_blocks:
            raise ValueError(
                f"hippo_blocks={self.hippo_blocks}: must divide d_state={self.d_state}"
            )

    def build(self, d_model: int, *, key: PRNGKeyArray) -> AbstractSSM:
        return S5.init(
            d_model,
            self.d_state,
            key=key,
            hippo_blocks=self.hippo_blocks,
            step_min=self.step_min,
            step_max=self.step_max,
            discretization=self.discretization,
        )


LAYERS: dict[str, type[LRUConfig] | type[S5Config]] = {"lru": LRUConfig, "s5": S5Config}


def layer_config(name: str) -> type[LRUConfig] | type[S5Config]:
    """The configuration class of the layer called `name`; a ValueError lists the names."""
    if name not in LAYERS:
        raise ValueError(f"model={name!r}, allowed: {', '.join(sorted(LAYERS))}")
    return LAYERS[name]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}, allowed: 1 or more")
