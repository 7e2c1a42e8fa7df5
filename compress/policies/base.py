"""The base classes of policies, and the steps that all of them share."""

import abc
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Float, PyTree

from ..plans import AbstractSpectrum
from .ranks import above_tie, check_sigma, next_multiple

Sigma = Float[np.ndarray, " n"]
Sigmas = Sequence[Float[np.ndarray, "..."]]
"""Of layers of any sizes."""
Cut = Callable[[Sequence[int]], PyTree]
"""From ranks, one for each layer, to the model with its layers cut to them."""

Policy = TypeVar("Policy", bound="AbstractJointPolicy")


@dataclass(frozen=True)
class AbstractPolicy(abc.ABC):
    """A policy, which decides how many states each layer of a model keeps."""

    @abc.abstractmethod
    def ranks(self, spectra: Mapping[str, AbstractSpectrum], cut: Cut) -> list[int]:
        """The rank of every layer. `spectra` are those of the layers, in order, by their paths."""


@dataclass(frozen=True, kw_only=True)
class AbstractJointPolicy(AbstractPolicy):
    """A policy that chooses from the values of all layers, and then rounds, unties and gates."""

    multiples: tuple[int, ...] = ()
    """What ranks are rounded up to multiples of, one after the other (see `rounded`)."""
    gate: float | int = 0.95
    """A layer is cut only if its rank is under this share of the old one (the paper's 95 %)."""

    keeps_ties: ClassVar[bool] = True

    def __post_init__(self):
        for multiple in self.multiples:
            check_count("multiple", multiple)
        if not 0 < as_number(self.gate) <= 1:
            raise ValueError(f"`gate` must be above 0 and at most 1, got {self.gate}")
        self._check()

    def _check(self) -> None:
        """Raise a ValueError for settings out of range."""

    @abc.abstractmethod
    def choose(self, sigmas: Sigmas, cut: Cut) -> Sequence[Any]:
        """A rank for each layer, from the layers' descending values."""

    def allowed(self, sigma: Sigma) -> float | None:
        """The sum of values that may be dropped; None if the policy has no such budget."""
        return None

    def rounded(self: Policy, multiple: int) -> Policy:
        """The same policy with ranks rounded up to the next multiple (vector width, fewer
        compilations).

        A rank is at most the layer's number of states. A cut of the real map may leave one state
        fewer, where it would split a pair of modes.
        """
        return replace(self, multiples=(*self.multiples, multiple))

    def gated(self: Policy, gate: float | int) -> Policy:
        """The same policy with another `gate`; 1 allows every cut."""
        return replace(self, gate=gate)

    def ranks(self, spectra: Mapping[str, AbstractSpectrum], cut: Cut) -> list[int]:
        def settled(chosen: Sequence[Any]) -> list[int]:
            pairs = zip(spectra.values(), chosen, strict=True)
            return [self._settled(spectrum, as_rank(rank)) for spectrum, rank in pairs]

        sigmas = [spectrum.sigma for spectrum in spectra.values()]
        return settled(self.choose(sigmas, lambda chosen: cut(settled(chosen))))

    def round_up(self, rank: int, n: int) -> int:
        """`rank`, rounded up by this policy, at most `n`."""
        for multiple in self.multiples:
            rank = next_multiple(rank, multiple, n)
        return rank

    def _settled(self, spectrum: AbstractSpectrum, rank: int) -> int:
        """`rank` for this layer: untied, within the budget, rounded and gated."""
        sigma = spectrum.sigma
        n = len(sigma)
        if not spectrum.is_known:
            return n
        rank = self.round_up(rank, n)
        if self.keeps_ties:
            rank = above_tie(rank, sigma)
        allowed = self.allowed(sigma)
        if allowed is not None:
            rank = spectrum.raised(rank, allowed)
        rank = self.round_up(rank, n)
        return rank if rank < self.gate * n else n


@dataclass(frozen=True)
class AbstractLayerPolicy(AbstractJointPolicy):
    """A policy that looks at one layer at a time."""

    @abc.abstractmethod
    def rank(self, sigma: Sigma) -> Any:
        """The number of states of a layer to keep, from its descending values."""

    def choose(self, sigmas: Sigmas, cut: Cut) -> list[Any]:
        return [self.rank(check_sigma(sigma)) for sigma in sigmas]


def as_rank(rank: Any, name: str = "policy") -> int:
    try:
        return operator.index(rank)
    except TypeError:
        raise ValueError(
            f"`{name}` must give whole numbers, one for each layer, got {rank!r}"
        ) from None


def as_number(value: Any) -> float:
    """`value` as a number; NaN, which no range holds, for what is none."""
    try:
        return math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def check_share(name: str, tau: Any) -> None:
    if not 0 <= as_number(tau) < 1:
        raise ValueError(f"`{name}` must be 0 or more and below 1, got {tau}")


def check_count(name: str, value: Any) -> None:
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"`{name}` must be 1 or more, got {value}")


def check_function(name: str, value: Any) -> None:
    if not callable(value):
        raise ValueError(f"`{name}` must be a function, got {value!r}")
