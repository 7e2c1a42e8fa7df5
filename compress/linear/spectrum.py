"""One layer's states weighed, and its cuts."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from zoo import AbstractSSM

from ..cut import AbstractCut
from ..model.layers import check_parameters
from ..numerics.precision import double_lti, from_double_lti, rounding_of
from ..numerics.threads import one_blas_thread
from ..policies import smallest_rank
from .balance import (
    Truncation,
    all_values,
    count_numerical,
    gramian_factors,
    hankel_svd,
    truncate,
)
from .cut import LinearCut
from .data_gramians import data_factor, gradient_factor, horizon_factors, refit
from .h2 import nearest
from .hankel import Form, check_system
from .lift import Projection
from .selection import Selection


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What a shrink does to one layer. Equal to itself alone: it holds arrays and a layer."""

    path: str
    """Where the layer is in the model, as one would write it: `blocks[0].ssm`."""
    sigma: Float[np.ndarray, " n"]
    """Hankel singular values, descending; of the real map in sums of two, one for each state."""
    rank_before: int
    """States now."""
    rank_after: int
    """States after the shrink, or fewer where fewer reproduce the layer."""
    bound: float
    """The error's gain is at most this: 2 * (sum of the dropped HSVs); infinite if not known."""
    floor: float
    """No system of so many states has an error of less gain: the HSV after all that they could
    hold, two each of the real map (real modes hold one each, and drop more); 0 if not known."""
    gramians: str
    """What `sigma` and the cut are made from."""
    cut: AbstractCut | None = field(default=None, repr=False)
    """The cut itself, where it has been made for the plan."""


@dataclass(frozen=True)
class Evidence:
    """What the states of a layer are weighed by; white noise if it is empty."""

    inputs: Any = None
    """What the layer is fed [b L d_model]."""
    gradients: Any = None
    """The gradients by its outputs [b L d_model]."""
    lengths: Any = None
    """Of padded sequences, the samples that count [b]; padding comes after them."""
    horizon: int | None = None
    """Samples that the Gramians are summed over."""
    states: bool = True
    """Weigh the states by `inputs`; else by white noise, and `inputs` serve to refit alone."""
    refit: bool | None = None
    """Fit C (and D) to the layer's outputs after the cut; None: only where it is selective."""
    optimal: bool = False
    """Move the reduced system to the nearest one in the H2 norm after the cut, by white noise."""

    @property
    def data(self) -> tuple[Any, Any, Any]:
        """What selective layers are weighed and fitted by."""
        return self.inputs, self.gradients, self.lengths

    @property
    def white(self) -> bool:
        """Whether both Gramians are those of white noise."""
        by_inputs = self.inputs is not None and self.states
        return not (by_inputs or self.gradients is not None or self.horizon is not None)

    def as_white(self) -> "Evidence":
        """The same with states weighed by white noise."""
        return replace(self, states=False, gradients=None, horizon=None)


class Spectrum:
    """One layer's system in double precision, the factors it is weighed by, and its cuts."""

    def __init__(
        self,
        name: str,
        layer: AbstractSSM,
        form: Form,
        evidence: Evidence,
        select: Selection | None = None,
    ):
        self.layer, self._evidence, self._select = layer, evidence, select
        self._planned: dict[int, LayerPlan] = {}
        self._reduced: dict[int, Truncation] = {}
        self.system = double_lti(layer)
        check_system(self.system, name)
        self.form: Form = form if evidence.white else "real"
        with one_blas_thread():  # the same digits whatever else runs
            self.gramians, self.factors = self._weighed(evidence)
            self._svd = hankel_svd(self.form, *self.factors)
            if not evidence.white and self._svd.sigma[0] == 0:
                self._evidence = evidence.as_white()
                silent = self.gramians
                white, self.factors = self._weighed(self._evidence)
                self._svd = hankel_svd(self.form, *self.factors)
                self.gramians = f"{white}: by {silent} all sigma are zero"
        n = layer.d_state
        self.sigma: Float[np.ndarray, " n"] = (
            all_values(self.form, self._svd, n).reshape(n, -1).sum(axis=1)
        )

    def _weighed(self, evidence: Evidence):
        """The words for the Gramians, and their factors."""
        if evidence.horizon is not None:
            return f"{evidence.horizon} samples", horizon_factors(self.system, evidence.horizon)
        if evidence.white:
            then = ", H2-optimal" if evidence.optimal else ""
            return f"white noise, {self.form}{then}", gramian_factors(self.system, self.form)
        system, u, g = self.system, evidence.inputs, evidence.gradients
        lengths = evidence.lengths
        if g is None:
            return "data", (data_factor(system, u, lengths), gramian_factors(system, "real")[1])
        Lq = gradient_factor(system, g, lengths)
        if evidence.states:
            return "data and gradients", (data_factor(system, u, lengths), Lq)
        return "gradients", (gramian_factors(system, "real")[0], Lq)

    def enough(self, rank: int, allowed: float) -> int:
        """`rank`, raised until the HSVs that are dropped add up to `allowed` at most.

        A state that is a real mode holds one of the real map's HSVs, not the two that `sigma` has.
        """
        each = 2 if self.form == "real" else 1
        while rank < self.layer.d_state:
            reduced = self._truncated(rank)
            wanted = smallest_rank(reduced.sigma, allowed)
            missing = min(wanted, count_numerical(reduced.sigma)) - reduced.order
            if missing <= 0:
                break
            rank += -(-missing // each)
        return min(rank, self.layer.d_state)

    def planned(self, path: str, rank: int) -> LayerPlan:
        """The plan that leaves the layer `rank` states."""
        if rank not in self._planned:
            self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        n, sigma = self.layer.d_state, self.sigma
        if rank >= n:
            return LayerPlan(path, sigma, n, n, 0.0, 0.0, self.gramians)
        reduced = self._truncated(rank)
        white, refitted = self._evidence.white, bool(self._evidence.refit)
        if self._evidence.optimal:
            reduced = nearest(self.system, reduced)
        if not white and reduced.radius >= 1:
            by = self._evidence.as_white()
            instead = Spectrum(path, self.layer, self.form, by).planned(path, rank)
            why = f"{self.gramians} would be unstable (radius {reduced.radius:.6f})"
            return replace(instead, gramians=f"{instead.gramians}: {why}")
        cut = None
        if reduced.rank < n:
            lti, fitted = reduced.lti, None
            if refitted:
                with one_blas_thread():
                    lti = refit(self.system, lti, self._evidence.inputs, self._evidence.lengths)
                fitted = lti.C - np.asarray(reduced.lti.C), lti.D - np.asarray(reduced.lti.D)
            after = from_double_lti(self.layer, lti)
            check_parameters((), after)
            cut = LinearCut(self.layer, after, self.system, _projection(reduced), fitted)
        bound = reduced.bound if white and not refitted else math.inf
        most = 2 * reduced.rank if self.form == "real" else reduced.rank
        floor = _at(reduced.sigma, most) if white and not refitted else 0.0
        return LayerPlan(path, sigma, n, reduced.rank, bound, floor, self.gramians, cut)

    def _truncated(self, rank: int) -> Truncation:
        if rank not in self._reduced:
            self._reduced[rank] = truncate(
                self.system,
                *self.factors,
                rank,
                form=self.form,
                rounding=rounding_of(self.layer),
                select=self._select,
                svd=self._svd,
            )
        return self._reduced[rank]


def _projection(reduced: Truncation) -> Projection:
    log_lam, V, W = np.asarray(reduced.lti.log_lam), reduced.V, reduced.W
    if not (np.any(reduced.V_conj) or np.any(reduced.W_conj)):
        return Projection(log_lam, V, W)
    return Projection(log_lam, V, W, reduced.V_conj, reduced.W_conj)


def _at(sigma: Float[np.ndarray, " k"], k: int) -> float:
    return float(sigma[k]) if k < len(sigma) else 0.0
