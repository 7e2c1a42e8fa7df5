"""Settings of the residual network around the layers."""

import math
from dataclasses import dataclass
from typing import Literal

from zoo.network.block import SCAN_ABOVE
from zoo.network.classifier import PoolName
from zoo.network.norm import NormName
from zoo.network.pointwise import GateName

from .errors import check_numbers, require

MOST_BLOCKS = 1000
"""Blocks that a network can have."""


@dataclass(frozen=True)
class NetworkConfig:
    """The residual network around the layers."""

    d_model: int = 64
    """Channels H of the residual stream."""
    blocks: int = 2
    """Residual blocks."""
    norm: NormName = "batch"
    """Normalisation of each block: `batch` by the current batch; `batch-ema` by running statistics
    also in training, with momentum 0.99, as in the paper's code; `layer` and `rms` by sample."""
    norm_first: bool = True
    """Normalise the input of a layer; otherwise the output of the block."""
    norm_affine: bool = True
    """Whether a norm has a weight and a bias."""
    norm_epsilon: float = 1e-5
    """Added to variances and mean squares."""
    gate: GateName = "full_glu"
    """Gate of the layer's activated outputs, with the names of S5. `none` keeps only the
    activation, `linear` removes that too. Mamba has its own gates."""
    pooling: PoolName = "mean"
    """The pooling of a classifier: the mean of the samples, or the last one."""
    dropout: float = 0.0
    """Share of the values that dropout sets to zero."""
    dropout_mask: Literal["sequence", "batch"] = "sequence"
    """Whether each sequence has its own dropout mask, or the whole batch shares one, as in the
    published code."""
    bidirectional: bool = False
    """Add a second layer to each block that runs in reverse."""
    attention_every: int = 0
    """Add a block of sliding-window attention after every so many blocks, except the last. 0:
    none."""
    attention_window: int = 64
    """Samples that attention sees: the current one and those before it."""
    attention_heads: int = 4
    """Heads of attention; must divide `d_model`."""
    recent: int = 0
    """Forecasts: each channel is relative to its mean and deviation over about so many rows before,
    so that the model follows a changed level. 0: it is taken as it is."""
    scan_above: int = SCAN_ABOVE
    """More equal neighbouring blocks than this run in one scan, which compiles them only once."""

    def __post_init__(self):
        check_numbers(self, "network.")
        every, heads = self.attention_every, self.attention_heads
        require(every >= 0, "network.attention_every", every, "0 or more")
        require(self.recent >= 0, "network.recent", self.recent, "0 or more")
        require(
            self.attention_window >= 1,
            "network.attention_window",
            self.attention_window,
            "1 or more",
        )
        fits = heads >= 1 and (every == 0 or self.d_model % heads == 0)
        require(fits, "network.attention_heads", heads, f"a divisor of d_model={self.d_model}")
        require(
            0 < self.norm_epsilon < math.inf, "network.norm_epsilon", self.norm_epsilon, "above 0"
        )
        require(self.scan_above >= 1, "network.scan_above", self.scan_above, "1 or more")
        require(self.d_model >= 1, "network.d_model", self.d_model, "1 or more")
        require(
            1 <= self.blocks <= MOST_BLOCKS, "network.blocks", self.blocks, f"1 to {MOST_BLOCKS}"
        )
        require(0 <= self.dropout < 1, "network.dropout", self.dropout, "in [0, 1)")
