"""The plan of a shrink: a row for each layer, and their table."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from .cut import AbstractCut
from .model.layers import check_parameters
from .model.record import LayerData, check_gradients
from .numerics.table import Table
from .numerics.threads import one_blas_thread


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """The plan for one layer. It equals only itself, since it holds arrays and a layer."""

    path: str
    """The layer's path in the model: `blocks[0].ssm`."""
    sigma: Float[np.ndarray, " n"]
    """Hankel singular values, descending; for the real map sums of two, one for each state."""
    rank_before: int
    """States now."""
    rank_after: int
    """States after the shrink, or fewer if fewer reproduce the layer."""
    bound: float
    """Upper bound of the error's gain: 2 * (sum of the dropped HSVs); infinite if not known."""
    floor: float
    """Lower bound of the error's gain for any system with as many states: the first HSV beyond
    those that they can hold, two each for the real map (real modes hold one each); 0 if not
    known."""
    gramians: str
    """The source of `sigma` and the cut."""
    cut: AbstractCut | None = field(default=None, repr=False)
    """The cut itself; None if the layer stays unchanged."""
    change: float | None = None
    """The change of the model's result on a batch by this layer's cut, to first order; None unless
    computed by `whole_model`."""
    change_bound: float | None = None
    """Upper bound of this change for every sequence of the batch; None unless computed."""


@dataclass(frozen=True, repr=False)
class Plan(Table):
    """The plan of a shrink, layer by layer, in the order of the model's leaves. It prints as a
    table. Errors are gains from a layer's input to its output (H-infinity norms).
    """

    layers: tuple[LayerPlan, ...]

    @property
    def ranks(self) -> dict[str, int]:
        """States after the shrink by path, as the policy `Ranks` takes them."""
        return {layer.path: layer.rank_after for layer in self.layers}

    def header(self) -> list[str]:
        change = ["result ~", "result <="] if self._says_changes else []
        return ["layer", "states", "after", "sigma_1", "error >=", "error <=", *change, "from"]

    def rows(self) -> list[list[str]]:
        rows = [
            [
                layer.path or "(model)",
                f"{layer.rank_before}",
                f"{layer.rank_after}",
                f"{layer.sigma[0]:.3g}",
                f"{layer.floor:.3g}",
                f"{layer.bound:.3g}",
                *self._changes(layer),
                layer.gramians,
            ]
            for layer in self.layers
        ]
        before = sum(layer.rank_before for layer in self.layers)
        after = sum(layer.rank_after for layer in self.layers)
        rest = [""] * (len(self.header()) - 3)
        return [*rows, ["total", f"{before}", f"{after}", *rest]]

    @property
    def _says_changes(self) -> bool:
        return any(layer.change is not None for layer in self.layers)

    def _changes(self, layer: LayerPlan) -> list[str]:
        if not self._says_changes:
            return []
        return ["" if x is None else f"{x:.3g}" for x in (layer.change, layer.change_bound)]


class AbstractSpectrum(abc.ABC):
    """The spectrum of one layer: the values of its states, and the way to the layer with fewer of
    them. A method computes one for each layer, a policy decides from `sigma` how many states stay,
    and `planned` makes the cut.
    """

    layer: Any
    """An `AbstractSSM`."""
    sigma: Float[np.ndarray, " n"]
    """The value of each state, descending."""

    @property
    @abc.abstractmethod
    def is_known(self) -> bool:
        """Whether `sigma` is meaningful. Otherwise a policy leaves the layer unchanged."""

    @abc.abstractmethod
    def raised(self, rank: int, allowed: float) -> int:
        """`rank`, or the next one for which the dropped values add up to `allowed` at most."""

    @abc.abstractmethod
    def planned(self, path: str, rank: int) -> LayerPlan:
        """The plan that leaves the layer at `path` so many states."""


class AbstractMeasuredSpectrum(AbstractSpectrum):
    """The states of a layer that follows its input, weighed on data.

    A class sets its settings and then calls `measure`.
    """

    gramians: str
    """What `sigma` and the cuts are made from."""

    def measure(self, name: str, layer: Any, data: LayerData) -> None:
        """Weigh the states of `layer`, which is called `name`, on `data`."""
        check_gradients(name, data)
        self.layer, self._name, self._data = layer, name, data
        self.gramians = "data" if data.gradients is None else "data and gradients"
        self._planned: dict[int, LayerPlan] = {}
        with one_blas_thread():
            self.sigma = np.sum(self.weighed(), axis=0)

    @abc.abstractmethod
    def weighed(self) -> Sequence[Float[np.ndarray, " n"]]:
        """What the states are worth, descending, of each group of them: groups add up."""

    @abc.abstractmethod
    def cut(self, rank: int) -> AbstractCut:
        """The layer with `rank` states, fewer than it has."""

    @property
    def is_known(self) -> bool:
        """Whether anything reaches the states, and anything from them the model's result."""
        return bool(self.sigma[0] > 0)

    def raised(self, rank: int, allowed: float) -> int:
        """`rank`: a state holds the value that `sigma` has for it."""
        return rank

    def planned(self, path: str, rank: int) -> LayerPlan:
        """The plan that leaves the layer `rank` states."""
        if rank not in self._planned:
            with one_blas_thread():
                self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        n, sigma = self.layer.d_state, self.sigma
        if rank >= n:
            return LayerPlan(path, sigma, n, n, 0.0, 0.0, self.gramians)
        if not self.is_known:
            raise ValueError(
                f"`batch` must reach the states of {self._name}, and these the model's result, got "
                f"{self.gramians} by which all sigma are zero"
            )
        cut = self.cut(rank)
        check_parameters((), cut.after)
        return LayerPlan(path, sigma, n, rank, math.inf, 0.0, self.gramians, cut)
