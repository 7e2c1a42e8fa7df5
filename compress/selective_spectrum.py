"""One selective layer's states weighed by data, and its cuts."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from zoo import AbstractSelectiveSSM

from .folded_cut import FoldedCut, SharedBasis, fold
from .layers import check_parameters
from .refold import refitted
from .selective import state_moments
from .shared import galerkin, hankel_values, leading_states
from .spectrum import Evidence, LayerPlan
from .threads import one_blas_thread


class SelectiveSpectrum:
    """What the states of a selective layer are worth on data, and the layer with fewer of them.

    Its `sigma` are the square roots of the eigenvalues of P Q, both summed over the channels that
    share B and C (`compress.selective`), and then over those groups. Where B and C are linear in
    the parameters, the states are mapped to a shared basis (`compress.shared.galerkin`), else the
    most valuable ones are selected.
    """

    def __init__(self, name: str, layer: AbstractSelectiveSSM, evidence: Evidence):
        if evidence.inputs is None:
            raise ValueError(
                f"batch: {name} is selective, what its states do depends on data, so batch or "
                "inputs must be given"
            )
        self.layer, self._evidence = layer, evidence
        self._planned: dict[int, LayerPlan] = {}
        with one_blas_thread():
            self._moments = state_moments(layer, evidence.inputs, evidence.gradients)
            self._grouped = self._moments.grouped()
            self.sigma = self._sigma()
        self.gramians = "data" if evidence.gradients is None else "data and gradients"

    def _sigma(self) -> Float[np.ndarray, " N"]:
        values = [hankel_values(P, Q) for P, Q, _ in self._grouped]
        return np.sum(values, axis=0)

    def planned(self, path: str, rank: int) -> LayerPlan:
        """The plan that leaves the layer `rank` states."""
        if rank not in self._planned:
            with one_blas_thread():
                self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        N, sigma = self.layer.d_state, self.sigma
        if rank >= N:
            return LayerPlan(path, sigma, N, N, 0.0, 0.0, self.gramians)
        basis = shared_basis(self.layer, self._grouped, rank)
        after, fitted = fold(self.layer, basis), None
        if self._evidence.refit is not False and self.layer.mixes_states:
            fitted = refitted(
                self.layer, after, basis.V, self._evidence.inputs, self._evidence.gradients
            )
            after = fold(self.layer, basis, fitted)
        check_parameters((), after)
        cut = FoldedCut(self.layer, after, basis, fitted)
        return LayerPlan(path, sigma, N, rank, math.inf, 0.0, self.gramians, cut)


def shared_basis(layer: AbstractSelectiveSSM, grouped: list[Any], rank: int) -> SharedBasis:
    """The basis of `rank` states that `layer` can take in, for each of its groups of channels."""
    if layer.mixes_states:
        bases = [galerkin(P, Q, A, rank) for P, Q, A in grouped]
        return SharedBasis(*(np.stack(of_groups) for of_groups in zip(*bases, strict=True)))
    return SharedBasis.selection(
        [leading_states(P, Q, rank) for P, Q, _ in grouped], len(grouped[0][0])
    )
