"""Banks of systems, one for each channel, which are weighed, cut and carried channel by channel.
Every channel is balanced by itself. All channels keep the same number of states, so that arrays
stay rectangular: `sigma` are the sums over the channels, and a channel that needs fewer states gets
idle ones after its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from zoo import AbstractBankSSM, AbstractSSM, DiagonalLTI

from ..cut import AbstractCut, Leaves
from ..model.layers import check_parameters
from ..numerics.precision import is_inexact, jit_for_once, narrow, of_numpy, rounding_of, widen
from ..numerics.threads import one_blas_thread
from ..plans import AbstractSpectrum, LayerPlan
from .balance import Truncation, all_values, hankel_svd, truncate
from .cut import filled_system, matched, projected_system
from .hankel import check_system
from .jacobian import Parameters, PerEntry
from .lift import Projection, pull_back, pull_back_squares
from .spectrum import projection_of
from .weighing import Weighing


class BankSpectrum(AbstractSpectrum):
    """The channels of one layer in double precision, their weighing, and their cuts."""

    def __init__(self, name: str, layer: AbstractSSM, weighing: Callable[[int], Weighing]):
        """`weighing(h)` weighs channel h."""
        self.layer = layer
        self._planned: dict[int, LayerPlan] = {}
        self._reduced: dict[int, list[_Reduced]] = {}
        self.systems = double_bank(layer)
        with one_blas_thread():
            self._channels = [
                _Channel.weighed(f"{name}, channel {h}", system, weighing(h))
                for h, system in enumerate(self.systems)
            ]
        n = layer.d_state
        words = {channel.weighing.words for channel in self._channels}
        self.gramians = "; ".join(sorted(words))
        self.sigma: Float[np.ndarray, " n"] = np.sum(
            [channel.values(n).reshape(n, -1).sum(axis=1) for channel in self._channels], axis=0
        )

    @property
    def is_known(self) -> bool:
        """Always True, as for one linear system."""
        return True

    def raised(self, rank: int, allowed: float) -> int:
        """`rank`, raised until the values that all channels drop add up to `allowed` at most.

        What a channel drops is a share of its own values: one that would be unstable is cut by
        others, which are in other units.
        """
        while rank < self.layer.d_state:
            pairs = zip(self._channels, self._truncated(rank), strict=True)
            if sum(channel.svd.sigma.sum() * cut.share for channel, cut in pairs) <= allowed:
                break
            rank += 1
        return rank

    def planned(self, path: str, rank: int) -> LayerPlan:
        if rank not in self._planned:
            self._planned[rank] = self._plan(path, rank)
        return replace(self._planned[rank], path=path)

    def _plan(self, path: str, rank: int) -> LayerPlan:
        n = self.layer.d_state
        if rank >= n:
            return LayerPlan(path, self.sigma, n, n, 0.0, 0.0, self.gramians)
        with one_blas_thread():
            pairs = zip(self._channels, self._truncated(rank), strict=True)
            parts = [_ChannelCut.made(channel, reduced.cut) for channel, reduced in pairs]
        after = max(part.rank for part in parts)
        if after >= n:
            return LayerPlan(path, self.sigma, n, n, 0.0, 0.0, self.gramians)
        cut = BankCut.made(self.layer, tuple(parts), after)
        check_parameters((), cut.after)
        bound, floor = self._errors([reduced.cut for reduced in self._truncated(rank)])
        return LayerPlan(path, self.sigma, n, after, bound, floor, self._said(rank), cut)

    def _said(self, rank: int) -> str:
        """What the cut is made from."""
        others = [reduced.words for reduced in self._truncated(rank) if reduced.words]
        if not others:
            return self.gramians
        count = f"{len(others)} of {self.layer.d_model} channels"
        return f"{self.gramians}; {count} by {others[0]}: they would be unstable"

    def _errors(self, reduced: list[Truncation]) -> tuple[float, float]:
        """Bounds of the error's gain, for the worst channel."""
        if not all(channel.has_bound for channel in self._channels):
            return math.inf, 0.0
        floors = [0.0]
        for channel, cut in zip(self._channels, reduced, strict=True):
            most = 2 * cut.rank if channel.weighing.form == "real" else cut.rank
            floors.append(float(cut.sigma[most]) if most < len(cut.sigma) else 0.0)
        return max(cut.bound for cut in reduced), max(floors)

    def _truncated(self, rank: int) -> list["_Reduced"]:
        if rank not in self._reduced:
            rounding, n = rounding_of(self.layer), self.layer.d_state
            self._reduced[rank] = [each.truncated(rank, rounding, n) for each in self._channels]
        return self._reduced[rank]


class _Reduced(NamedTuple):
    """One channel with fewer states."""

    cut: Truncation
    words: str
    """The weighing used instead of the requested one; empty in most cases."""

    @property
    def share(self) -> float:
        """The share of its values that has been dropped."""
        sigma = self.cut.sigma
        return float(np.sum(sigma[self.cut.order :]) / max(np.sum(sigma), TINY))


@dataclass(frozen=True)
class _Channel:
    """One channel's system and its weighing."""

    system: DiagonalLTI
    weighing: Weighing
    factors: Any
    svd: Any

    @classmethod
    def weighed(cls, name: str, system: DiagonalLTI, weighing: Weighing) -> "_Channel":
        check_system(system, name)
        factors = weighing.factors(system)
        svd = hankel_svd(weighing.form, *factors)
        if weighing.instead is not None and svd.sigma[0] == 0:
            return cls.weighed(name, system, weighing.instead)
        return cls(system, weighing, factors, svd)

    @property
    def has_bound(self) -> bool:
        return self.weighing.is_white and self.weighing.refit is None

    def values(self, n: int) -> Float[np.ndarray, " k"]:
        return all_values(self.weighing.form, self.svd, n)

    def truncated(self, rank: int, rounding: float, n: int) -> _Reduced:
        """The channel with `rank` states; by what comes instead where it would be unstable."""
        weighing = self.weighing
        reduced = truncate(
            self.system,
            self.factors[0],
            self.factors[1],
            rank,
            form=weighing.form,
            rounding=rounding,
            select=weighing.select,
            svd=self.svd,
        )
        if weighing.improve is not None and rank < n:
            reduced = weighing.improve(self.system, reduced)
        if weighing.instead is not None and reduced.radius >= 1:
            instead = _Channel.weighed("a channel", self.system, weighing.instead)
            return _Reduced(instead.truncated(rank, rounding, n).cut, weighing.instead.words)
        return _Reduced(reduced, "")


@dataclass(frozen=True)
class _ChannelCut:
    """One channel before and after its truncation."""

    before: DiagonalLTI
    after: DiagonalLTI
    projection: Projection
    fitted: tuple[Any, Any] | None

    @classmethod
    def made(cls, channel: _Channel, reduced: Truncation) -> "_ChannelCut":
        lti, fitted = reduced.lti, None
        if channel.weighing.refit is not None:
            lti = channel.weighing.refit(channel.system, lti)
            fitted = lti.C - np.asarray(reduced.lti.C), lti.D - np.asarray(reduced.lti.D)
        return cls(channel.system, lti, projection_of(reduced), fitted)

    @property
    def rank(self) -> int:
        return self.after.d_state

    def copied(self, copy: DiagonalLTI) -> DiagonalLTI | None:
        """Another version of the channel, cut as this one; None if it has other real modes."""
        lti, basis = projected_system(copy, self.projection)
        if lti.d_state != self.rank:
            return None
        lti = matched(lti, basis)
        if self.fitted is None:
            return lti
        of_C, of_D = self.fitted
        return DiagonalLTI(lti.log_lam, lti.B, lti.C + of_C, np.asarray(lti.D) + of_D)


TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class BankCut(AbstractCut):
    """A bank before and after its channels were truncated, to one number of states."""

    parts: tuple[_ChannelCut, ...]

    @classmethod
    def made(cls, layer: AbstractSSM, parts: tuple[_ChannelCut, ...], rank: int) -> "BankCut":
        after = from_double_bank(layer, [filled_system(part.after, rank) for part in parts])
        return cls(layer, after, parts)

    @cached_property
    def _parameters(self) -> tuple[list[Parameters], list[Parameters]]:
        full, reduced = bank_derivatives(self.before), bank_derivatives(self.after)
        return full, [of.first(part.rank) for of, part in zip(reduced, self.parts, strict=True)]

    def gradients(self, arrays: Leaves) -> Leaves:
        return self._through(arrays, "gradients")

    def squares(self, arrays: Leaves) -> Leaves:
        return self._through(arrays, "squares")

    def _through(self, arrays: Leaves, what: str) -> Leaves:
        """Channel by channel through the lift. Filled-up states get zeros."""
        rows: dict[int, list[Any]] = {}
        rank = self.after.d_state
        for h, (part, full, reduced) in enumerate(zip(self.parts, *self._parameters, strict=True)):
            own = {k: arrays[k][h].reshape(shape) for k, shape in _shapes(full) if k in arrays}
            if what == "squares":
                pulled = pull_back_squares(
                    full.squares_to_system(own), part.before, part.projection
                )
                new = reduced.squares_from_system(pulled)
            else:
                pulled = pull_back(full.to_system(own), part.before, part.projection)
                new = reduced.from_system(pulled)
            for k, x in new.items():
                rows.setdefault(k, []).append(np.pad(np.ravel(x), (0, rank - np.size(x))))
        return {k: np.stack(of) for k, of in rows.items()}

    def copies(self, arrays: Leaves) -> Leaves:
        leaves, structure = jax.tree.flatten(self.before)
        after = jax.tree.leaves(self.after)
        copy = structure.unflatten([arrays.get(k, x) for k, x in enumerate(leaves)])
        cut = [p.copied(lti) for p, lti in zip(self.parts, double_bank(copy), strict=True)]
        if all(lti is not None for lti in cut):
            rank = self.after.d_state
            filled = [filled_system(lti, rank) for lti in cut if lti is not None]
            after = jax.tree.leaves(from_double_bank(self.after, filled))
        old = jax.tree.leaves(self.after)
        changed = {k for k in arrays if not np.array_equal(leaves[k], old[k])}
        return {k: np.asarray(after[k]) for k in changed}

    def first_entries(self, place: int, x: Any) -> Any:
        return x[tuple(map(slice, jax.tree.leaves(self.after)[place].shape))]

    def filled(self, rank: int) -> AbstractCut:
        return BankCut.made(self.before, self.parts, rank)


def _shapes(parameters: Parameters) -> list[tuple[int, tuple[int, ...]]]:
    """The shape that a channel's part of each field has as part of its system."""
    (n,), of_B, of_C = parameters.shapes
    state = [(k, (n,)) for k in parameters.of_state]
    return state + [(k, of_B) for k in parameters.of_B] + [(k, of_C) for k in parameters.of_C]


def double_bank(layer: AbstractSSM) -> list[DiagonalLTI]:
    """The systems of the layer's channels, computed and kept in double precision."""
    with jax.enable_x64(True):
        bank = jax.tree.map(np.asarray, _to_bank(widen(layer)))
    return [jax.tree.map(lambda x, h=h: x[h], bank) for h in range(layer.d_model)]


def from_double_bank(layer: AbstractSSM, systems: list[DiagonalLTI]) -> AbstractSSM:
    """The layer that computes these systems, in the layer's own kind of arrays."""
    bank = jax.tree.map(lambda *x: np.stack([np.asarray(a) for a in x]), *systems)
    with jax.enable_x64(True):
        wide = _from_bank(widen(layer), widen(bank))
        wide = of_numpy(wide)
    return narrow(wide, layer)


def bank_derivatives(layer: AbstractSSM) -> list[Parameters]:
    """The derivatives of every channel's system by its parameters, in double precision.

    Fields of the shape [d_model d_state] act on their own state; other fields, such as step sizes,
    are left out: they keep their shape and meaning.
    """
    leaves, structure = jax.tree.flatten(layer)
    size = (layer.d_model, layer.d_state)
    fields = [k for k, x in enumerate(leaves) if is_inexact(x) and x.shape == size]
    by_field: dict[int, PerEntry] = {}
    with jax.enable_x64(True):
        wide = widen(layer)
        for k in fields:
            change = [
                jax.device_put(np.full(x.shape, float(k == j))) if is_inexact(x) else None
                for j, x in enumerate(leaves)
            ]
            pushed = _jvp(wide, structure.unflatten(change))
            by_field[k] = PerEntry(*map(np.asarray, pushed))
    n = layer.d_state
    found = []
    for h in range(layer.d_model):
        own = {k: PerEntry(*(x[h] for x in d)) for k, d in by_field.items()}
        of_state = {k: d for k, d in own.items() if np.any(by_field[k].log_lam)}
        rest = {k: d for k, d in own.items() if k not in of_state}
        of_B = {k: d.B for k, d in rest.items() if np.any(by_field[k].B)}
        of_C = {k: d.C for k, d in rest.items() if np.any(by_field[k].C)}
        found.append(Parameters(of_state, of_B, of_C, ((n,), (n, 1), (1, n))))
    return found


def _bank(layer: AbstractSSM) -> AbstractBankSSM:
    assert isinstance(layer, AbstractBankSSM)
    return layer


@jit_for_once
def _to_bank(layer: AbstractSSM) -> DiagonalLTI:
    return _bank(layer).to_lti()


@jit_for_once
def _from_bank(layer: AbstractSSM, lti: DiagonalLTI) -> AbstractSSM:
    return _bank(layer).from_lti(lti)


@jit_for_once
def _jvp(layer: AbstractSSM, tangent: Any) -> PerEntry:
    def system(layer):
        lti: Any = _bank(layer).to_lti()
        return PerEntry(lti.log_lam, lti.B, lti.C)

    return eqx.filter_jvp(system, (layer,), (tangent,))[1]
