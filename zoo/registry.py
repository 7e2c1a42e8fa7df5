"""The layers by name, each with the dataclass that configures it."""

from dataclasses import dataclass
from math import inf, pi
from typing import Protocol, runtime_checkable

from jaxtyping import PRNGKeyArray

from .layers.base import AbstractSSM
from .layers.discretize import Discretization
from .layers.lru import LRU
from .layers.mamba import Mamba
from .layers.mamba2 import Mamba2
from .layers.s5 import S5


@runtime_checkable
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
        _check_steps("step", self.step_min, self.step_max)

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


@dataclass(frozen=True)
class MambaConfig:
    """Selective layer of Mamba (Gu & Dao 2024)."""

    d_state: int = 16
    """Real states N of each channel at the start."""
    expand: int = 2
    """Channels of the recurrence, as a multiple of d_model."""
    d_conv: int = 4
    """Samples under the convolution."""
    dt_rank: int | None = None
    """Rank of the map to the step sizes; None for ceil(d_model / 16)."""
    dt_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    dt_max: float = 1e-1
    """Largest step size at the start [samples]."""
    dt_init_floor: float = 1e-4
    """Least step size at the start, whatever dt_min [samples]."""
    bias: bool = False
    """Biases of the projections in and out."""
    conv_bias: bool = True
    """Bias of the convolution."""
    tied: bool = False
    """One spectrum for all channels, at a speed of its own for each: A_log = a_n + s_d."""

    def __post_init__(self):
        for name in ("d_state", "expand", "d_conv"):
            _check_positive(name, getattr(self, name))
        if self.dt_rank is not None:
            _check_positive("dt_rank", self.dt_rank)
        _check_steps("dt", self.dt_min, self.dt_max)

    def build(self, d_model: int, *, key: PRNGKeyArray) -> AbstractSSM:
        return Mamba.init(d_model, key=key, **vars(self))


@dataclass(frozen=True)
class Mamba2Config:
    """Selective layer of Mamba-2, one decay for each head (Dao & Gu 2024)."""

    d_state: int = 64
    """Real states N of each channel at the start."""
    expand: int = 2
    """Channels of the recurrence, as a multiple of d_model."""
    headdim: int = 16
    """Channels of a head; must divide expand * d_model."""
    n_groups: int = 1
    """Groups of heads, each with B and C of its own; must divide the number of heads."""
    d_conv: int = 4
    """Samples under the convolution."""
    chunk_size: int = 64
    """Samples that are computed at once [samples]; does not change the results."""
    dt_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    dt_max: float = 1e-1
    """Largest step size at the start [samples]."""
    dt_init_floor: float = 1e-4
    """Least step size at the start, whatever dt_min [samples]."""
    dt_limit: tuple[float, float] = (0.0, inf)
    """Step sizes are clipped to this range, always [samples]."""
    bias: bool = False
    """Biases of the projections in and out."""
    conv_bias: bool = True
    """Bias of the convolution."""

    def __post_init__(self):
        for name in ("d_state", "expand", "headdim", "n_groups", "d_conv", "chunk_size"):
            _check_positive(name, getattr(self, name))
        _check_steps("dt", self.dt_min, self.dt_max)

    def build(self, d_model: int, *, key: PRNGKeyArray) -> AbstractSSM:
        return Mamba2.init(d_model, key=key, **vars(self))


LayerClass = type[LRUConfig] | type[S5Config] | type[MambaConfig] | type[Mamba2Config]

LAYERS: dict[str, LayerClass] = {
    "lru": LRUConfig,
    "s5": S5Config,
    "mamba": MambaConfig,
    "mamba2": Mamba2Config,
}


def layer_config(name: str) -> LayerClass:
    """The configuration class of the layer called `name`; a ValueError lists the names."""
    if name not in LAYERS:
        raise ValueError(f"model={name!r}, allowed: {', '.join(sorted(LAYERS))}")
    return LAYERS[name]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}={value}, allowed: 1 or more")


def _check_steps(name: str, low: float, high: float) -> None:
    if not 0 < low <= high:
        raise ValueError(
            f"{name}_min={low}, {name}_max={high}: allowed is 0 < {name}_min <= {name}_max"
        )
