"""The Hankel operator of a selective layer on data, at samples of it.

A selective layer has no impulse response. A measured operator replaces its Hankel operator: with
the states h_j at one sample and the gradient mu_i by the states at another
(`compress.selective.moments`), the matrix

    Gamma_ij = mu_i^T h_j

over T samples of all channels, each scaled by T^(-1/2). It factors through the N states as the
Hankel operator of a linear system does, and its singular values are the roots of the eigenvalues of
P Q, those that `compress` weighs the layer by.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int

from zoo import AbstractMambaSSM

from ..numerics.precision import widen
from .moments import Part, backward, channel_gradients, forward, parts

COLUMNS = 2**13
"""Approximate number of samples of single channels. Each is a vector of N states and one of N
gradients."""


class SampledStates(NamedTuple):
    """States and the gradients by them at the same samples, of each group's channels in turn."""

    H: Float[np.ndarray, "G N K"]
    """h_j / sqrt(T)."""
    M: Float[np.ndarray, "G N K"]
    """mu_j / sqrt(T)."""

    def values(self) -> Float[np.ndarray, " k"]:
        """Singular values of Gamma = M^T H, descending."""
        return self.svd()[0]

    def svd(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k GK"]]:
        """Singular values of Gamma, descending, and its right singular vectors as rows.

        Groups are independent: together they are a block diagonal Gamma.
        """
        H, M = (np.asarray(scipy.linalg.block_diag(*x)) for x in (self.H, self.M))
        Q, R = np.linalg.qr(H.T)
        _, sigma, Vh = np.linalg.svd(np.linalg.qr(M.T, mode="r") @ R.T)
        return sigma, Vh @ Q.T

    def minus(self, other: "SampledStates") -> "SampledStates":
        """The difference of the two operators, as an operator with the states of both."""
        H, M = np.concatenate([self.H, other.H], 1), np.concatenate([self.M, -other.M], 1)
        return SampledStates(H, M)

    def inner(
        self,
        rows: Float[np.ndarray, "k GK"],
        other: "SampledStates",
        other_rows: Float[np.ndarray, "j GK"],
    ) -> Float[np.ndarray, "k j"]:
        """Inner products of vectors over these samples with those over the same of `other`."""
        return rows @ other_rows.T


def sampled_states(
    layer: AbstractMambaSSM,
    inputs: Any,
    gradients: Any = None,
    lengths: Int[Array | np.ndarray, " b"] | None = None,
    *,
    columns: int = COLUMNS,
) -> SampledStates:
    """States of `layer` on `inputs` [b L d_model], at about `columns` / d of the samples.

    They are the same samples for data of the same shape and `lengths`, so that the operators of two
    layers of as many channels compare. The other arguments are those of
    `compress.selective.moments.state_moments`.
    """
    with jax.enable_x64(True):
        wide = widen(layer)
        d, N = wide.eigenvalues.shape
        samples = max(1, columns // d)
        seen = [
            tuple(np.asarray(x)[part.counts > 0] for x in _states(wide, part))
            for part in parts(inputs, gradients, d * N, lengths, samples)
        ]
    both = (np.concatenate(x) for x in zip(*seen, strict=True))
    return SampledStates(*(_by_group(x, wide.groups) for x in both))


def _by_group(x: Float[np.ndarray, "T d N"], groups: int) -> Float[np.ndarray, "G N K"]:
    T, d, N = x.shape
    x = x.reshape(T, groups, d // groups, N).transpose(1, 3, 0, 2)
    return x.reshape(groups, N, T * (d // groups)) / np.sqrt(T)


@eqx.filter_jit
def _states(
    layer: AbstractMambaSSM, part: Part
) -> tuple[Float[Array, "chunks kept b d N"], Float[Array, "chunks kept b d N"]]:
    """h and mu at the samples that are looked at."""
    A, signals = layer.eigenvalues, jax.vmap(layer.signals)(jnp.asarray(part.u))
    h, y = forward(A, signals, part, _looked_at, stack=True)
    dy = channel_gradients(layer, part, y)
    return h, backward(A, signals, dy, part, _looked_at, stack=True)


def _looked_at(
    h: Float[Array, "T b d N"], at: Int[Array, " kept"], _: Array
) -> Float[Array, "kept b d N"]:
    return h[at]
