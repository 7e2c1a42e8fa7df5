"""The ways to cut a layer of linear attention that `benchmarks/attention_cuts.py` compares.

`compress` has the best ones; the others are here, each a function from a layer's recordings and a
rank to another layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float

from compress.attention.cut import KeyBasis, fold
from compress.attention.moments import KeyMoments, key_moments
from compress.numerics.moments import balanced, least_missed, orthonormal, root
from zoo import AbstractLinearAttention

Moments = Float[np.ndarray, "K K"]


@dataclass(frozen=True)
class Observed:
    """A layer, and the moments of its keys on calibration data."""

    layer: AbstractLinearAttention
    moments: KeyMoments

    @classmethod
    def on(cls, layer: AbstractLinearAttention, inputs: Any, gradients: Any) -> "Observed":
        return cls(layer, key_moments(layer, inputs, gradients))


Method = Callable[[Observed, int], AbstractLinearAttention]


def _mapped(choose: Callable[[Moments, Moments, Moments, int], Any]) -> Method:
    """Maps behind queries and keys, by the columns of `choose` for each head, orthonormal."""

    def method(seen: Observed, rank: int) -> AbstractLinearAttention:
        heads = zip(seen.moments.P, seen.moments.Q, seen.moments.keys, strict=True)
        U = np.stack([np.linalg.qr(choose(P, Q, keys, rank))[0] for P, Q, keys in heads])
        return fold(seen.layer.with_maps(), KeyBasis(U, U))

    return method


def _selected(choose: Callable[[Moments, Moments, int], Any]) -> Method:
    """The channels that `choose` gives for each head, from their contributions and the keys."""

    def method(seen: Observed, rank: int) -> AbstractLinearAttention:
        heads = zip(seen.moments.parts, seen.moments.keys, strict=True)
        kept = [choose(parts, keys, rank) for parts, keys in heads]
        return fold(seen.layer, KeyBasis.selection(kept, seen.layer.d_state))

    return method


def _leading(moments: Moments, rank: int) -> Moments:
    return np.linalg.eigh(moments)[1][:, ::-1][:, :rank]


def _pivoted(keys: Moments, rank: int) -> Any:
    """The channels that a QR with pivoting of all keys takes first (arXiv 2602.04852)."""
    return scipy.linalg.qr(root(keys).T, pivoting=True, mode="r")[-1][:rank]


def _any(K: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).permutation(K)


METHODS: dict[str, Method] = {
    "map, P / tr P + Q / tr Q": _mapped(lambda P, Q, keys, r: orthonormal(P, Q, r)[0]),
    "map, balanced product": _mapped(lambda P, Q, keys, r: balanced(P, Q, r)[0]),
    "map, E[k k^T]": _mapped(lambda P, Q, keys, r: _leading(keys, r)),
    "map, random": _mapped(
        lambda P, Q, keys, r: np.random.default_rng(0).standard_normal((len(P), r))
    ),
    "selection, least missed": _selected(lambda parts, keys, r: least_missed(parts, r)),
    "selection, energy": _selected(lambda parts, keys, r: np.argsort(-np.diag(parts))[:r]),
    "selection, rank-revealing QR": _selected(lambda parts, keys, r: _pivoted(keys, r)),
    "selection, random": _selected(lambda parts, keys, r: _any(len(keys))[:r]),
}
