"""The spectrum of one selective layer on data, and its cuts."""

import math
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from zoo import AbstractMambaSSM

from ..cut import AbstractCut, MapsCut, added_maps
from ..model.layers import check_parameters
from ..model.record import LayerData, check_gradients
from ..numerics.moments import balanced, hankel_values, least_missed
from ..numerics.threads import one_blas_thread
from ..plans import AbstractSpectrum, LayerPlan
from .basis import galerkin
from .cut import FoldedCut, SharedBasis, fold
from .moments import contributions, state_moments
from .refit import refitted


class SelectiveSpectrum(AbstractSpectrum):
    """The values of a selective layer's states on data, and the layer with fewer of them. If B and
    C are linear in the parameters, the states are mapped to a shared basis
    (`compress.selective.basis.galerkin`; balanced if all states of a channel have one decay), and
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
        check_gradients(name, data)
        self.layer, self._data = layer, data
        self._mapped = layer.with_maps() if maps else layer
        self._refit = layer.folds if refit is None else refit
        self._planned: dict[int, LayerPlan] = {}
        self._name = name
        self.gramians = "data" if data.gradients is None else "data and gradients"
        arrays = self._arrays
        with one_blas_thread():
            if self._mapped.mixes_states:
                self._grouped = state_moments(self._mapped, *arrays).grouped()
                values = [hankel_values(P, Q) for P, Q, _ in self._grouped]
            else:
                self._contributions = contributions(layer, *arrays)
                values = [np.sort(np.sqrt(np.diag(K)))[::-1] for K in self._contributions]
        self.sigma: Float[np.ndarray, " N"] = np.sum(values, axis=0)

    @property
    def _arrays(self) -> tuple[Any, Any, Any]:
        return self._data.inputs, self._data.gradients, self._data.lengths

    @property
    def is_known(self) -> bool:
        """Whether the states receive anything and affect the model's result."""
        return bool(self.sigma[0] > 0)

    def raised(self, rank: int, allowed: float) -> int:
        """`rank` itself: the values are exact for these states."""
        return rank

    def planned(self, path: str, rank: int) -> LayerPlan:
        """The plan that leaves the layer with `rank` states."""
        if rank not in self._planned:
            with one_blas_thread():
                self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        N, sigma = self.layer.d_state, self.sigma
        if rank >= N:
            return LayerPlan(path, sigma, N, N, 0.0, 0.0, self.gramians)
        if not self.is_known:
            raise ValueError(
                f"`batch` must reach the states of {self._name}, and these the model's result, got "
                f"{self.gramians} by which all sigma are zero"
            )
        cut = self._cut(rank)
        check_parameters((), cut.after)
        return LayerPlan(path, sigma, N, rank, math.inf, 0.0, self.gramians, cut)

    def _cut(self, rank: int) -> AbstractCut:
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
            C = refitted(mapped, after, basis.V, *self._arrays)
            after = fold(mapped, basis, C)
        if mapped is not self.layer:
            leaves = jax.tree.leaves(self.layer)
            (like,) = (k for k, x in enumerate(leaves) if x is self.layer.in_proj.weight)
            seen = self._data.inputs, self._data.gradients
            return MapsCut(self.layer, after, added_maps(mapped, [like, like], *seen))
        return FoldedCut(self.layer, after, basis, C)
