"""Few programs for many sizes: systems are padded with idle states. Compilation takes seconds,
running milliseconds, and every shrink gives new numbers of states. So one program serves all
numbers between two sizes: a power of two or 1.5 times one, at least `SMALLEST`.
"""

import numpy as np
from jaxtyping import Complex

SMALLEST = 64
"""Size of the smallest program. Any computation with 64 states takes milliseconds."""


def padded_size(n: int) -> int:
    """The number of states of the program for `n` states."""
    size = SMALLEST
    while size < n:
        size = 3 * size // 2 if size & (size - 1) == 0 else 4 * size // 3
    return size


def padded(
    log_lam: Complex[np.ndarray, " n"], B: Complex[np.ndarray, "n m"]
) -> tuple[Complex[np.ndarray, " k"], Complex[np.ndarray, "k m"]]:
    """The states and inputs of a system, and after them states without inputs, k in all."""
    more = padded_size(len(log_lam)) - len(log_lam)
    return np.concatenate([log_lam, np.full(more, -1.0)]), np.pad(B, ((0, more), (0, 0)))
