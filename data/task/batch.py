"""What a model reads: sequences in batches, with all that goes with them."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

Kind = Literal["classification", "pair", "multilabel", "values", "regression", "language", "recall"]
"""What is asked: the class of a sequence, the class of a pair of sequences, which of several labels
a sequence has, values for a sequence, values at every step, the next token at every step, or a
token at some of the steps."""

InputKind = Literal["real", "tokens"]

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: called now and then by long work; its owner draws the bar."""


class Batch(NamedTuple):
    """Sequences as a model reads them, with all that goes with them; None where there is nothing.

    `*batch` is [B], or [count, B] for several batches at once.
    """

    inputs: (
        Float32[np.ndarray, "*batch L c"]
        | Int32[np.ndarray, "*batch L"]
        | Int32[np.ndarray, "*batch 2 L"]
    )
    """Real channels, tokens, or pairs of sequences of tokens."""
    labels: (
        Int32[np.ndarray, "*batch"]
        | Float32[np.ndarray, "*batch k"]
        | Float32[np.ndarray, "*batch L k"]
        | Int32[np.ndarray, "*batch L"]
    )
    """The class; k labels (0 or 1) or values; k values at every step; the next token at each, or
    the token that is asked for at a step, -1 where none is."""
    lengths: Int32[np.ndarray, "*batch"] | Int32[np.ndarray, "*batch 2"] | None = None
    """Steps of each sequence proper; what follows them is padding. None: nothing is padded."""
    intervals: Float32[np.ndarray, "*batch L"] | Float32[np.ndarray, "*batch 2 L"] | None = None
    """Time before each step, in units of a usual one. None: all the same."""
    label_mask: (
        Bool[np.ndarray, "*batch k"]
        | Bool[np.ndarray, "*batch L k"]
        | Bool[np.ndarray, "*batch L"]
        | None
    ) = None
    """Which of the labels are known and count. None: all."""
