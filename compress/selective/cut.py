"""The cut of a selective layer, folded into its parameters, and how moments follow it.

With h near V g the reduced layer's maps are B_r = W B and C_r = V^T C, and a channel's eigenvalues
the diagonal of W diag(A) V. The lift of a change of the reduced layer to the full one is

    dB = V dB_r,    dC = W^T dC_r,    dA = S dA_r,    S[n, m] = V[n, m] W[m, n] / sum over m,

so gradients by B go through V^T, those by C through W, and those by A through S^T: an eigenvalue
moves with its share of each reduced one; the shares add up to one. Exact where states that are
merged have equal eigenvalues. Otherwise a change of A_r also couples states that A does not couple,
differently in each channel, and no shared change of B and C can express this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from zoo import AbstractMambaSSM

from ..cut import AbstractCut, Leaves
from ..numerics.precision import narrow, of_numpy, widen

LEAST_SHARE = 1e-2
"""Smallest kept share of a state for which its eigenvalue moves with the kept ones."""


@dataclass(frozen=True)
class SharedBasis:
    """h near V g with g = W h, W V = I, for each group of channels that share B and C.

    A selection of states is one too: its columns are unit vectors.
    """

    V: Float[np.ndarray, "G N r"]
    W: Float[np.ndarray, "G r N"]

    @classmethod
    def selection(cls, states: list[Any], N: int) -> "SharedBasis":
        """The basis of these states, a list of numbers for each group."""
        V = np.stack([np.eye(N)[:, np.asarray(of_group)] for of_group in states])
        return cls(V, np.swapaxes(V, 1, 2))

    @property
    def couplings(self) -> Float[np.ndarray, "r N"]:
        """V[n, m] W[m, n] of the first group: the share of A[n] in A_r[m]."""
        return self.V[0].T * self.W[0]


def fold(
    layer: AbstractMambaSSM, basis: SharedBasis, C: Float[np.ndarray, "G N r"] | None = None
) -> AbstractMambaSSM:
    """`layer` with the states of `basis`, computed in double precision, in its own kind of arrays.

    `C`, if given, makes the maps to the outputs instead of V.
    """
    to_C = np.swapaxes(basis.V if C is None else C, 1, 2)
    with jax.enable_x64(True):
        # of NumPy, since new sizes would be new programs
        mapped = of_numpy(widen(layer)).map_states(
            lambda rows: _times(basis.W, rows),
            lambda rows: _times(to_C, rows),
            lambda log_A: np.log(np.exp(np.asarray(log_A)) @ basis.couplings.T),
        )
        mapped = of_numpy(mapped)
    return narrow(mapped, layer)


@dataclass(frozen=True)
class FoldedCut(AbstractCut):
    """A selective layer before and after its states were mapped to fewer."""

    before: AbstractMambaSSM
    after: AbstractMambaSSM
    basis: SharedBasis
    C: Float[np.ndarray, "G N r"] | None = None
    """The basis of the maps to the outputs, if it is not V."""

    def gradients(self, arrays: Leaves) -> Leaves:
        return self._through(arrays, lambda coefficients: coefficients)

    def squares(self, arrays: Leaves) -> Leaves:
        return self._through(arrays, np.square)

    def copies(self, arrays: Leaves) -> Leaves:
        leaves, structure = jax.tree.flatten(self.before)
        copy = structure.unflatten([arrays.get(k, x) for k, x in enumerate(leaves)])
        new = jax.tree.leaves(fold(copy, self.basis, self.C))
        return {k: np.asarray(new[k]) for k in arrays if np.shape(new[k]) != np.shape(leaves[k])}

    def first_entries(self, place: int, x: Any) -> Any:
        r = self.basis.V.shape[2]
        leaves, structure = jax.tree.flatten(self.before)
        leaves[place] = x
        return jax.tree.leaves(structure.unflatten(leaves).first_states(r))[place]

    def _through(self, arrays: Leaves, coefficients: Callable[[Any], Any]) -> Leaves:
        """The adjoint of the lift, or what it is for other `coefficients`."""
        to_B = coefficients(np.swapaxes(self.basis.V, 1, 2))
        to_C = coefficients(self.basis.W)
        A, A_r = (np.asarray(layer.eigenvalues, np.float64) for layer in (self.before, self.after))

        couplings = self.basis.couplings
        shares = couplings / np.maximum(np.sum(couplings, axis=0), LEAST_SHARE)

        def by_log(gradient):
            slopes = coefficients(A_r[:, :, None] * shares / A[:, None])
            # where the spectrum is tied, slopes are the same for all channels
            return np.einsum("cmn,cn->cm", slopes[: len(gradient)], np.asarray(gradient))

        leaves, structure = jax.tree.flatten(self.before)
        with jax.enable_x64(True):
            given = [
                jax.device_put(arrays.get(k, np.zeros(np.shape(x)))) for k, x in enumerate(leaves)
            ]
            mapped = structure.unflatten(given).map_states(
                lambda rows: _times(to_B, rows), lambda rows: _times(to_C, rows), by_log
            )
            new = jax.tree.leaves(mapped)
            return {k: np.asarray(new[k]) for k in arrays if new[k] is not given[k]}


def _times(matrices: Float[np.ndarray, "G k N"], rows: Any) -> Any:
    """Matrix times rows [G N ...], group by group."""
    return np.einsum("gkn,gn...->gk...", matrices, np.asarray(rows))
