"""The choice of the balanced states to keep, for a given number. Balanced truncation keeps those
with the largest Hankel singular values. The other choices are the paper's ablations.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from zoo.typing import checked

StateChoice = Callable[[Float[np.ndarray, " n"], int], Int[np.ndarray, " r"]]
"""From descending singular values and a number r to the places of the r that stay, ascending."""


@checked
def smallest_values(sigma: Float[np.ndarray, " n"], rank: int) -> Int[np.ndarray, " r"]:
    """The `rank` states of the smallest values."""
    return np.arange(len(sigma) - min(rank, len(sigma)), len(sigma))


@checked
def random_values(seed: int | np.integer) -> StateChoice:
    """States drawn at random; every layer and every shrink draws afresh from `seed`'s stream."""
    rng = np.random.default_rng(seed)
    return lambda sigma, rank: np.sort(rng.choice(len(sigma), min(rank, len(sigma)), replace=False))
