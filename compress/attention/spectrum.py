"""One layer of linear attention, its keys weighed by data, and its cuts."""

import math
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from zoo import AbstractLinearAttention

from ..cut import AbstractCut, MapsCut, added_maps
from ..model.layers import check_parameters
from ..model.record import LayerData, check_gradients
from ..numerics.moments import balanced, hankel_values, least_missed, orthonormal
from ..numerics.threads import one_blas_thread
from ..plans import AbstractSpectrum, LayerPlan
from .cut import KeyBasis, KeysCut, fold
from .moments import key_moments


class AttentionSpectrum(AbstractSpectrum):
    """The values of the keys of a linear attention layer, and the layer with fewer keys. The layer
    says which bases keep its form. With one decay for each head any basis does, and the balanced
    one is taken. With the delta rule orthonormal bases do, and the one in which both P and Q are
    large is taken (`compress.numerics.moments.orthonormal`). The basis is written into the
    parameters of queries and keys if these are linear in them, otherwise into `maps` after them.
    `sigma` are the square roots of the eigenvalues of P Q (`compress.attention.moments`).

    Where each key has a decay of its own, or without `maps`, keys are selected, and `sigma` are the
    roots of the keys' individual contributions. Contributions of heads are added.
    """

    def __init__(
        self,
        name: str,
        layer: AbstractLinearAttention,
        data: LayerData,
        *,
        maps: bool | None = None,
    ):
        check_gradients(name, data)
        self.layer, self._name, self._data = layer, name, data
        self.gramians = "data" if data.gradients is None else "data and gradients"
        self._mixes = layer.mixes_keys or (layer.basis != "selection" and maps is not False)
        self._planned: dict[int, LayerPlan] = {}
        with one_blas_thread():
            self._moments = key_moments(layer, data.inputs, data.gradients, data.lengths)
            if self._mixes:
                pairs = zip(self._moments.P, self._moments.Q, strict=True)
                values = [hankel_values(P, Q) for P, Q in pairs]
            else:
                values = [np.sort(np.sqrt(np.diag(K)))[::-1] for K in self._moments.parts]
        self.sigma: Float[np.ndarray, " K"] = np.sum(values, axis=0)

    @property
    def is_known(self) -> bool:
        """Whether the states receive anything and affect the result."""
        return bool(self.sigma[0] > 0)

    def raised(self, rank: int, allowed: float) -> int:
        """`rank` itself: the values are exact for keys."""
        return rank

    def planned(self, path: str, rank: int) -> LayerPlan:
        """The plan that leaves the layer `rank` keys for each head."""
        if rank not in self._planned:
            with one_blas_thread():
                self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        K, sigma = self.layer.d_state, self.sigma
        if rank >= K:
            return LayerPlan(path, sigma, K, K, 0.0, 0.0, self.gramians)
        if not self.is_known:
            raise ValueError(
                f"`batch` must reach the states of {self._name}, and these the model's result, got "
                f"{self.gramians} by which all sigma are zero"
            )
        cut = self._cut(rank)
        check_parameters((), cut.after)
        return LayerPlan(path, sigma, K, rank, math.inf, 0.0, self.gramians, cut)

    def _cut(self, rank: int) -> AbstractCut:
        layer, basis = self.layer, self._basis(rank)
        if layer.mixes_keys or not self._mixes:
            return KeysCut(layer, fold(layer, basis), basis)
        opened = layer.with_maps()
        leaves = jax.tree.leaves(layer)
        made_by = (layer.qkv.q_proj.weight, layer.qkv.k_proj.weight)
        like = [next(k for k, x in enumerate(leaves) if x is weight) for weight in made_by]
        maps: Any = added_maps(opened, like, self._data.inputs, self._data.gradients)
        return MapsCut(layer, fold(opened, basis), maps)

    def _basis(self, rank: int) -> KeyBasis:
        if not self._mixes:
            keys = [least_missed(K, rank) for K in self._moments.parts]
            return KeyBasis.selection(keys, self.layer.d_state)
        choose = balanced if self.layer.basis == "any" else orthonormal
        pairs = zip(self._moments.P, self._moments.Q, strict=True)
        bases = [choose(P, Q, rank) for P, Q in pairs]
        U, W = (np.stack(of_heads) for of_heads in zip(*bases, strict=True))
        return KeyBasis(U, np.swapaxes(W, 1, 2))
