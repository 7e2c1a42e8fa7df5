"""What a shrink does to a model: a row for each layer, and the table of them."""

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
    """The cut itself; None where the layer stays as it is."""
    change: float | None = None
    """How far the cut of this layer moves the model's result on a batch, to first order; None where
    nobody has asked (`whole_model`)."""
    change_bound: float | None = None
    """What no sequence of that batch is moved further than; None where nobody has asked."""


@dataclass(frozen=True, repr=False)
class Plan(Table):
    """What a shrink does to a model, layer by layer, in the order of the model's leaves.

    Prints as a table. Errors are gains from a layer's input to its output (H-infinity norms).
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
    """The states of one layer, weighed: what each is worth, and the layer with fewer of them.

    A method makes one for each layer; a policy reads `sigma` and says how many states stay;
    `planned` then makes the cut.
    """

    layer: Any
    """An `AbstractSSM`."""
    sigma: Float[np.ndarray, " n"]
    """What each state is worth, descending."""

    @property
    @abc.abstractmethod
    def is_known(self) -> bool:
        """Whether `sigma` says anything. A policy leaves a layer as it is where it does not."""

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
