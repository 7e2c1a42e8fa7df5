"""The interface of cuts: the layer before and after, and how moments follow."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zoo import AbstractSSM

Leaves = dict[int, Float[np.ndarray, "..."]]
"""Numbers for some of a layer's leaves, by the place of the leaf in `jax.tree.leaves(layer)`."""


@dataclass(frozen=True)
class Added:
    """A parameter that a layer has only after its cut."""

    like: int
    """The place of a parameter of the layer before: if it is trained, masked or averaged, so is
    this one."""
    square: float
    """About the mean square of its gradient, as a multiple of that of the other's."""


@dataclass(frozen=True)
class AbstractCut(abc.ABC):
    """A layer before and after its cut.

    The methods take numbers for some of the leaves of `before`, by their places, each in the shape
    of the parameter; what is missing counts as zero. They return numbers in the shapes of `after`.
    """

    before: AbstractSSM
    after: AbstractSSM

    @property
    def added(self) -> tuple[Added, ...]:
        """The parameters that only `after` has, its last leaves. Most cuts have none."""
        return ()

    @abc.abstractmethod
    def gradients(self, arrays: Leaves) -> Leaves:
        """Gradients, or what is linear in them, carried through the adjoint of the lift."""

    @abc.abstractmethod
    def squares(self, arrays: Leaves) -> Leaves:
        """Squares of gradients, carried through the squares of the same coefficients."""

    @abc.abstractmethod
    def copies(self, arrays: Leaves) -> Leaves:
        """Another set of parameters, such as an average of these, cut in the same way."""

    def filled(self, rank: int) -> "AbstractCut":
        """The same cut with idle states after the others, `rank` in all. It is used for the layers
        of a stack, which keep one number of states. ValueError if this kind of cut always leaves
        the requested number of states.
        """
        raise ValueError(
            f"`rank` must be {self.after.d_state} for a {type(self).__name__}, got {rank}"
        )

    @abc.abstractmethod
    def first_entries(self, place: int, x: Any) -> Any:
        """The first entries of `x`, in the shape of the leaf of `before` at `place`."""


@dataclass(frozen=True)
class MapsCut(AbstractCut):
    """A layer that keeps all its parameters and gets additional maps to fewer states."""

    maps: tuple[Added, ...]

    @property
    def added(self) -> tuple[Added, ...]:
        return self.maps

    def gradients(self, arrays: Leaves) -> Leaves:
        return {}

    def squares(self, arrays: Leaves) -> Leaves:
        return {}

    def copies(self, arrays: Leaves) -> Leaves:
        return {}

    def first_entries(self, place: int, x: Any) -> Any:
        return x


def added_maps(opened: AbstractSSM, like: Sequence[int], inputs: Any, gradients: Any) -> Any:
    """The maps of a layer, its last leaves, as `Added`; each refers to the leaf at a place of
    `like`. `opened` is the layer before its cut with identity maps. The ratio of their gradients to
    the others' is measured on a few sequences [b L d_model] and the gradients by the outputs.
    """
    count = len(inputs)
    rows = np.linspace(0, count - 1, min(count, SEQUENCES)).round().astype(int)
    u = np.asarray(inputs, np.float32)[rows]
    if gradients is None:
        g = np.random.default_rng(0).standard_normal(u.shape, np.float32)
    else:
        g = np.asarray(gradients, np.float32)[rows]
    squares = [float(x) for x in jax.tree.leaves(_mean_squares(opened, u, g))]
    new = range(len(squares) - len(like), len(squares))
    ratios = [squares[n] / max(squares[k], TINY) for n, k in zip(new, like, strict=True)]
    return tuple(Added(k, ratio) for k, ratio in zip(like, ratios, strict=True))


@eqx.filter_jit
def _mean_squares(layer: Any, u: Any, g: Any) -> Any:
    """Of each parameter, the mean square of its gradients, sequence by sequence."""

    def of_one(u: Any, g: Any) -> Any:
        return eqx.filter_grad(lambda layer: jnp.sum(layer(u) * g))(layer)

    return jax.tree.map(lambda x: jnp.mean(x**2), jax.vmap(of_one)(jnp.asarray(u), jnp.asarray(g)))


SEQUENCES = 4
"""Sequences that gradients of new parameters are compared on."""

TINY = float(np.finfo(np.float32).tiny)
