"""Settings of S5, in one direction or in both."""

from dataclasses import dataclass, fields
from typing import ClassVar

import jax
from jaxtyping import PRNGKeyArray

from ..typing import checked
from .checks import check_divides, check_kinds, check_positive, check_steps
from .discretize import Discretization
from .s5 import S5, check_rescale
from .s5_both_ways import S5BothWays


@dataclass(frozen=True)
class S5Config:
    """Simplified state-space layer (Smith et al. 2023)."""

    states_per_channel: ClassVar[bool] = False

    d_state: int = 64
    """Complex states N of each layer at the start: one of each conjugate pair."""
    hippo_blocks: int = 1
    """HiPPO-LegS-N matrices on the diagonal; must divide d_state."""
    step_min: float = 1e-3
    """Smallest step size at the start [samples]."""
    step_max: float = 1e-1
    """Largest step size at the start [samples]."""
    discretization: Discretization = "zoh"
    """The discretisation of continuous time."""
    conjugate_pairs: bool = True
    """Whether to store one of each conjugate pair of states. False stores both as independent
    states."""
    clip_eigenvalues: bool = False
    """Whether to clip real parts of eigenvalues to at most -1e-4, as the original's `clip_eigs`."""
    step_rescale: float = 1.0
    """Factor of all step sizes, for samples at another rate than in training."""
    both_ways: bool = False
    """Whether to read forwards and backwards with one Lambda and B, as the original's
    `bidirectional`."""
    current_twice: bool = True
    """With `both_ways`, whether both directions count the current input, as in the original."""

    def __post_init__(self):
        check_kinds(self)
        check_positive("d_state", self.d_state)
        check_divides("hippo_blocks", self.hippo_blocks, "d_state", self.d_state)
        check_steps("step", self.step_min, self.step_max)
        check_rescale(self.step_rescale)

    @checked
    def build(self, d_model: int, *, key: PRNGKeyArray) -> S5 | S5BothWays:
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        both_ways, twice = settings.pop("both_ways"), settings.pop("current_twice")
        layer = S5.init(d_model, key=key, **settings)
        if not both_ways:
            return layer
        other = S5.init(d_model, key=jax.random.fold_in(key, 1), **settings)
        return S5BothWays.from_halves(layer, other, current_twice=twice)
