"""One layer of linear attention, its keys weighed by data, and its cuts."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from zoo import AbstractLinearAttention

from ..cut import AbstractCut, MapsCut, added_maps
from ..model.record import LayerData
from ..numerics.moments import balanced, hankel_values, least_missed, orthonormal
from ..plans import AbstractMeasuredSpectrum
from .cut import KeyBasis, KeysCut, fold
from .moments import key_moments


class AttentionSpectrum(AbstractMeasuredSpectrum):
    """What the keys of a layer of linear attention are worth, and the layer with fewer of them.

    Which bases keep the form, the layer says. With one decay for each head it is any, and the
    balanced one is taken; by the delta rule orthonormal ones, and the one in which both P and Q are
    large is (`compress.numerics.moments.orthonormal`). The basis is written into what makes queries
    and keys where they are linear in that, else into `maps` behind it. `sigma` are the square roots
    of the eigenvalues of P Q (`compress.attention.moments`).

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
        self._mixes = layer.mixes_keys or (layer.basis != "selection" and maps is not False)
        self.measure(name, layer, data)

    def weighed(self) -> list[Float[np.ndarray, " K"]]:
        """Of each head."""
        data = self._data
        self._moments = key_moments(self.layer, data.inputs, data.gradients, data.lengths)
        if not self._mixes:
            return [np.sort(np.sqrt(np.diag(K)))[::-1] for K in self._moments.parts]
        pairs = zip(self._moments.P, self._moments.Q, strict=True)
        return [hankel_values(P, Q) for P, Q in pairs]

    def cut(self, rank: int) -> AbstractCut:
        """The layer with `rank` keys for each head."""
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
