"""The spectrum of one selective layer on data, and its cuts."""

from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from zoo import AbstractMambaSSM

from ..cut import AbstractCut, MapsCut, added_maps
from ..model.record import LayerData
from ..numerics.moments import balanced, hankel_values, least_missed
from ..plans import AbstractMeasuredSpectrum
from .basis import galerkin
from .cut import FoldedCut, SharedBasis, fold
from .moments import contributions, state_moments
from .refit import Refit


class SelectiveSpectrum(AbstractMeasuredSpectrum):
    """What the states of a selective layer are worth on data, and the layer with fewer of them.

    Where B and C are linear in the parameters, the states are mapped to a shared basis
    (`compress.selective.basis.galerkin`; balanced where all of a channel decay alike), and
    `sigma` are the square roots of the eigenvalues of P Q, both summed over the channels that share
    B and C. Otherwise states are selected (`least_missed`), and `sigma` are the roots of their
    individual contributions. Groups of channels are added. With `maps` such a layer keeps all
    parameters of B and C, and maps both to a shared basis.
    """

    def __init__(
        self,
        name: str,
        layer: AbstractMambaSSM,
        data: LayerData,
        *,
        refit: bool | None = None,
        maps: bool = False,
    ):
        self._mapped = layer.with_maps() if maps else layer
        self._refit = layer.folds if refit is None else refit
        self.measure(name, layer, data)

    @property
    def _arrays(self) -> tuple[Any, Any, Any]:
        return self._data.inputs, self._data.gradients, self._data.lengths

    @cached_property
    def _outputs(self) -> Refit:
        return Refit(self._mapped, *self._arrays)

    def weighed(self) -> list[Float[np.ndarray, " N"]]:
        """Of each group of channels."""
        if self._mapped.mixes_states:
            self._grouped = state_moments(self._mapped, *self._arrays).grouped()
            return [hankel_values(P, Q) for P, Q, _ in self._grouped]
        self._contributions = contributions(self.layer, *self._arrays)
        return [np.sort(np.sqrt(np.diag(K)))[::-1] for K in self._contributions]

    def cut(self, rank: int) -> AbstractCut:
        """The layer with `rank` states for each channel."""
        mapped = self._mapped
        if not mapped.mixes_states:
            states = [least_missed(K, rank) for K in self._contributions]
            basis = SharedBasis.selection(states, self.layer.d_state)
            return FoldedCut(self.layer, fold(self.layer, basis), basis)
        pairs = [
            balanced(P, Q, rank) if mapped.is_tied else galerkin(P, Q, A, rank)
            for P, Q, A in self._grouped
        ]
        basis = SharedBasis(*(np.stack(of_groups) for of_groups in zip(*pairs, strict=True)))
        after, C = fold(mapped, basis), None
        if self._refit:
            C = self._outputs.fitted(after, basis.V)
            after = fold(mapped, basis, C)
        if mapped is not self.layer:
            leaves = jax.tree.leaves(self.layer)
            (like,) = (k for k, x in enumerate(leaves) if x is self.layer.in_proj.weight)
            seen = self._data.inputs, self._data.gradients
            return MapsCut(self.layer, after, added_maps(mapped, [like, like], *seen))
        return FoldedCut(self.layer, after, basis, C)
