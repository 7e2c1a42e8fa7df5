"""Outputs of a selective layer that was cut, fitted to those of the whole one on data.

With the reduced states g of all channels given, y is near C^T V g for the V [N r] that minimises
E[dy^2] E[(y - C^T V g)^2] summed over channels, dy being the gradient by a channel's output. The
matrix of the normal equations for the N r entries of V is one product of matrices,

    sum_k G_k (x) (C_k C_k^T),    G_k = sum_d E[dy^2] g_k g_k^T,

and V is folded into the layer like any other. (Separate weights for each sample would fit these
samples better, but others worse.) The equations are solved for the change of a V that is near, from
what its outputs miss; so single precision is enough for their matrix.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int

from zoo import AbstractMambaSSM

from ..linear.data_gramians import counted
from ..numerics.precision import of_numpy, widen
from .moments import Part, channel_gradients, forward, parts

RIDGE = 1e-2
"""Share of each entry's own moment that is added to it, so that directions with little data stay
unchanged."""

FEWEST, SHARED = 8, 32
"""Sizes up to the first, and up to the same power of two above it, share a program: the others'
states stay zero. So do cuts to half of a layer's states or fewer, and up to the second: an idle
state then takes less time than another program takes to be loaded."""

KEPT = 2**22
"""Most numbers of a layer's outputs, over sequences, samples and channels, that are kept."""


class Refit:
    """The outputs of a selective layer on data, which those of reduced layers are fitted to.

    `inputs`, `gradients` [b L d_model] and `lengths` are as in
    `compress.selective.moments.state_moments`. A small layer's outputs are computed once.
    """

    def __init__(
        self,
        layer: AbstractMambaSSM,
        inputs: Any,
        gradients: Any = None,
        lengths: Int[Array | np.ndarray, " b"] | None = None,
    ):
        self._layer = layer
        if gradients is not None:  # of any size, while single precision is not
            inside = counted(inputs, lengths)[..., None]
            gradients = np.where(inside, np.asarray(gradients, np.float64), 0)
            gradients = gradients / max(np.max(np.abs(gradients)), np.finfo(float).tiny)
        self._parts = partial(parts, inputs, gradients, layer.eigenvalues.size, lengths)
        self._is_small = math.prod(np.shape(inputs)[:2]) * len(layer.eigenvalues) <= KEPT
        self._known: list[Targets] | None = None

    def fitted(
        self, reduced: AbstractMambaSSM, V: Float[np.ndarray, "G N r"]
    ) -> Float[np.ndarray, "G N r"]:
        """The V that fits the outputs of `reduced`, which is the layer with h near `V` g."""
        G, N, r = V.shape
        most = _shared_size(N)
        states = max(_shared_size(r), min(most // 2, SHARED))
        with jax.enable_x64(True):
            wide = widen(_with_idle_states(self._layer, most - N))
            small = widen(_with_idle_states(reduced, states - r))
            near = np.pad(V, [(0, 0), (0, most - N), (0, states - r)])
            moments = np.zeros((G, _pairs(states), _pairs(most)), np.float32)
            right = np.zeros((G, states, most))
            for pieces, outputs, weights in self._targets(wide):
                for piece, y in zip(pieces, outputs, strict=True):
                    sums = _normal_equations(wide, small, near, piece, y, weights)
                    moments, right = moments + np.asarray(sums[0]), right + np.asarray(sums[1])
        rows, columns = _places(states)[:r, :r], _places(most)[:N, :N]
        squares = moments[:, rows[:, None, :, None], columns[:, None]]  # [G r N r N]
        needed = zip(squares.reshape(G, r * N, r * N), right[:, :r, :N], strict=True)
        return V + np.stack([_solve(*of_group) for of_group in needed])

    def _targets(self, wide: AbstractMambaSSM) -> "Iterable[Targets]":
        if not self._is_small:
            return (_target(wide, part) for part in self._parts())
        if self._known is None:
            self._known = [_target(wide, part) for part in self._parts()]
        return self._known


class Targets(NamedTuple):
    """Some sequences in pieces, the layer's outputs of each, and the weights of its channels."""

    pieces: list[Part]
    outputs: tuple[Float[Array, "b L d"], ...]
    weights: Float[Array, " d"]


def _target(wide: AbstractMambaSSM, part: Part) -> Targets:
    pieces = list(part.pieces(len(wide.eigenvalues)))
    outputs, squares = zip(*(_outputs(wide, piece) for piece in pieces), strict=True)
    return Targets(pieces, outputs, jnp.mean(jnp.stack(squares), axis=0))


def _pairs(n: int) -> int:
    """The entries of a symmetric matrix that differ."""
    return n * (n + 1) // 2


def _places(n: int) -> Int[np.ndarray, "n n"]:
    """Where the entries of a symmetric matrix stand among its upper triangle's."""
    places = np.zeros((n, n), int)
    places[np.triu_indices(n)] = np.arange(_pairs(n))
    return np.maximum(places, places.T)


def _shared_size(n: int) -> int:
    """The states of the program for `n` states."""
    return max(FEWEST, 1 << (n - 1).bit_length())


def _with_idle_states(layer: AbstractMambaSSM, more: int) -> AbstractMambaSSM:
    """`layer` with `more` states that stay zero."""

    def rows(x: Any) -> Any:  # [G N ...]
        return np.pad(np.asarray(x), [(0, 0), (0, more), *[(0, 0)] * (np.ndim(x) - 2)])

    # of NumPy, since new sizes would be new programs
    return of_numpy(layer).map_states(rows, rows, rows) if more else layer


def _solve(
    matrix: Float[np.ndarray, "rN rN"], right: Float[np.ndarray, "r N"]
) -> Float[np.ndarray, "N r"]:
    """The change of V by the normal equations; `matrix` is overwritten."""
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), np.finfo(matrix.dtype).tiny))
    matrix *= scale[:, None]
    matrix *= scale
    matrix[np.diag_indices(right.size)] += RIDGE
    factor = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    change = scale * scipy.linalg.cho_solve(factor, scale * right.reshape(-1))
    return change.reshape(right.shape).T


@eqx.filter_jit
def _outputs(
    layer: AbstractMambaSSM, part: Part
) -> tuple[Float[Array, "b L d"], Float[Array, " d"]]:
    """The channels' outputs, and the mean squares of the gradients by them."""
    signals = jax.vmap(layer.signals)(jnp.asarray(part.u))
    _, y = forward(layer.eigenvalues, signals, part, lambda *_: ())
    return y, jnp.mean(jnp.square(channel_gradients(layer, part, y)), axis=(0, 1))


@eqx.filter_jit
def _normal_equations(
    layer: AbstractMambaSSM,
    reduced: AbstractMambaSSM,
    V: Float[np.ndarray, "G N r"],
    part: Part,
    y: Float[Array, "b L d"],
    weights: Float[Array, " d"],
) -> tuple[Float[Array, "G pairs_r pairs_N"], Float[Array, "G r N"]]:
    """The moments of each pair of reduced states with each pair of entries of C, and those of g and
    C (y - C^T V g)."""
    u = jnp.asarray(part.u)
    signals, small = jax.vmap(layer.signals)(u), jax.vmap(reduced.signals)(u)
    G = layer.groups

    def look(g, at, counts, C, y):
        k, b, d, r = g[at].shape
        weigh = jnp.sqrt(weights * counts[..., None])
        g = (g[at] * weigh[..., None]).reshape(k * b, G, d // G, r)
        C = C[at].reshape(k * b, G, -1)
        missed = (y[at] * weigh).reshape(k * b, G, d // G)
        missed -= jnp.einsum("sgm,sgdm->sgd", jnp.einsum("sgn,gnm->sgm", C, V), g)
        (m, l), (n, p) = np.triu_indices(r), np.triu_indices(C.shape[-1])
        single = jnp.float32(g)
        squares = jnp.einsum("sgdm,sgdl->sgml", single, single)[..., m, l]
        products = jnp.einsum("sgdm,sgd->sgm", g, missed)
        return (
            jnp.einsum("sgk,sgj->gkj", squares, jnp.float32(C[..., n] * C[..., p])),
            jnp.einsum("sgm,sgn->gmn", products, C),
        )

    return forward(reduced.eigenvalues, small, part, look, signals.C, y)[0]
