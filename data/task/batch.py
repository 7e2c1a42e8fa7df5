"""Batches: sequences and their labels, lengths, intervals and masks."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

Kind = Literal["classification", "pair", "multilabel", "values", "regression", "language", "recall"]
"""The kind of label: the class of a sequence, the class of a pair of sequences, several labels of a
sequence, values for a sequence, values at every step, the next token at every step, or a token at
some of the steps."""

InputKind = Literal["real", "tokens"]

Progress = Callable[[int, int, str], None]
"""`progress(done, total, what)`: called from time to time by long work."""


class Batch(NamedTuple):
    """Sequences as a model reads them, with optional arrays (None).

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
    """The class; k labels (0 or 1) or values; k values at every step; the next token at each step,
    or the token at queried steps and -1 at others."""
    lengths: Int32[np.ndarray, "*batch"] | Int32[np.ndarray, "*batch 2"] | None = None
    """Length of each sequence; steps after it are padding. None: no padding."""
    intervals: Float32[np.ndarray, "*batch L"] | Float32[np.ndarray, "*batch 2 L"] | None = None
    """Time before each step, in units of a usual interval. None: regular sampling."""
    label_mask: (
        Bool[np.ndarray, "*batch k"]
        | Bool[np.ndarray, "*batch L k"]
        | Bool[np.ndarray, "*batch L"]
        | None
    ) = None
    """Mask of the known labels. None: all."""
