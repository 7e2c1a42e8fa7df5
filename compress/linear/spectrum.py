"""The spectrum of one linear layer, and its cuts."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from zoo import AbstractSSM
from zoo.layers.base import as_linear

from ..model.layers import check_parameters
from ..numerics.precision import rounding_of
from ..numerics.threads import one_blas_thread
from ..plans import AbstractSpectrum, LayerPlan
from ..policies.ranks import smallest_rank
from .balance import Truncation, all_values, count_numerical, hankel_svd, truncate
from .cut import LinearCut
from .hankel import check_system
from .lift import Projection
from .system import double_lti, from_double_lti
from .weighing import Weighing


class LinearSpectrum(AbstractSpectrum):
    """One layer's system in double precision, the factors it is weighed by, and its cuts."""

    def __init__(self, name: str, layer: AbstractSSM, weighing: Weighing):
        self.layer, self._weighing = layer, weighing
        self._planned: dict[int, LayerPlan] = {}
        self._reduced: dict[int, Truncation] = {}
        self.system = double_lti(layer)
        check_system(self.system, name)
        self.gramians = weighing.words
        with one_blas_thread():  # the same digits whatever else runs
            self._weigh(weighing)
            if weighing.instead is not None and self._svd.sigma[0] == 0:
                self._weigh(weighing.instead)
                self.gramians = f"{weighing.instead.words}: by {self.gramians} all sigma are zero"
        n = layer.d_state
        self.sigma: Float[np.ndarray, " n"] = (
            all_values(self._weighing.form, self._svd, n).reshape(n, -1).sum(axis=1)
        )

    def _weigh(self, weighing: Weighing) -> None:
        self._weighing, self._factors = weighing, weighing.factors(self.system)
        self._svd = hankel_svd(weighing.form, *self._factors)

    @property
    def is_known(self) -> bool:
        """A system whose values by white noise are zero has no output, and one state is enough.
        Values by data that are zero carry no information.
        """
        return self._weighing.is_white or bool(self._svd.sigma[0] > 0)

    def raised(self, rank: int, allowed: float) -> int:
        """`rank`, raised until the HSVs that are dropped add up to `allowed` at most.

        A state that is a real mode holds one of the real map's HSVs, not the two that `sigma` has.
        """
        each = 2 if self._weighing.form == "real" else 1
        while rank < self.layer.d_state:
            reduced = self._truncated(rank)
            wanted = smallest_rank(reduced.sigma, allowed)
            missing = min(wanted, count_numerical(reduced.sigma)) - reduced.order
            if missing <= 0:
                break
            rank += -(-missing // each)
        return min(rank, self.layer.d_state)

    def planned(self, path: str, rank: int) -> LayerPlan:
        if rank not in self._planned:
            self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        n, weighing = self.layer.d_state, self._weighing
        if rank >= n:
            return LayerPlan(path, self.sigma, n, n, 0.0, 0.0, self.gramians)
        reduced = self._truncated(rank)
        if weighing.improve is not None:
            reduced = weighing.improve(self.system, reduced)
        if weighing.instead is not None and reduced.radius >= 1:
            instead = LinearSpectrum(path, self.layer, weighing.instead).planned(path, rank)
            why = f"{self.gramians} would be unstable (radius {reduced.radius:.6f})"
            return replace(instead, gramians=f"{instead.gramians}: {why}")
        bound, floor = self._errors(reduced)
        cut = None if reduced.rank >= n else self._cut(reduced)
        return LayerPlan(path, self.sigma, n, reduced.rank, bound, floor, self.gramians, cut)

    def _cut(self, reduced: Truncation) -> LinearCut:
        lti, fitted = reduced.lti, None
        if self._weighing.refit is not None:
            with one_blas_thread():
                lti = self._weighing.refit(self.system, lti)
            fitted = lti.C - np.asarray(reduced.lti.C), lti.D - np.asarray(reduced.lti.D)
        after = from_double_lti(self.layer, lti)
        check_parameters((), after)
        return LinearCut(self.layer, after, self.system, projection_of(reduced), fitted)

    def _errors(self, reduced: Truncation) -> tuple[float, float]:
        """The bound of the error's gain from above, and from below."""
        weighing = self._weighing
        if not weighing.is_white or weighing.refit is not None:
            return math.inf, 0.0
        most = 2 * reduced.rank if weighing.form == "real" else reduced.rank
        floor = float(reduced.sigma[most]) if most < len(reduced.sigma) else 0.0
        factor = as_linear(self.layer).error_factor
        return factor * reduced.bound, floor if factor == 1 else 0.0

    def _truncated(self, rank: int) -> Truncation:
        if rank not in self._reduced:
            self._reduced[rank] = truncate(
                self.system,
                *self._factors,
                rank,
                form=self._weighing.form,
                rounding=rounding_of(self.layer),
                select=self._weighing.select,
                svd=self._svd,
            )
        return self._reduced[rank]


def projection_of(reduced: Truncation) -> Projection:
    """The relation of the states before and after a truncation."""
    log_lam, V, W = np.asarray(reduced.lti.log_lam), reduced.V, reduced.W
    if not (np.any(reduced.V_conj) or np.any(reduced.W_conj)):
        return Projection(log_lam, V, W)
    return Projection(log_lam, V, W, reduced.V_conj, reduced.W_conj)
