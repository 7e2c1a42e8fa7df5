"""Outputs of a selective layer that was cut, fitted to those of the whole one on data.

With the reduced states g of all channels given, y is near C^T V g for the V [N r] that minimises
E[dy^2] E[(y - C^T V g)^2] summed over channels, dy being the gradient by a channel's output. The
normal equations for the N r entries of V are one product of matrices,

    sum_k G_k (x) (C_k C_k^T),    G_k = sum_d E[dy^2] g_k g_k^T,

and V is folded into the layer like any other. (Separate weights for each sample would fit these
samples better, but others worse.)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int

from zoo import AbstractMambaSSM

from ..numerics.precision import widen
from .moments import Part, channel_gradients, forward, parts

RIDGE = 1e-2
"""Share of each entry's own moment that is added to it, so that directions with little data stay
unchanged."""


def refitted(
    layer: AbstractMambaSSM,
    reduced: AbstractMambaSSM,
    V: Float[np.ndarray, "G N r"],
    inputs: Any,
    gradients: Any = None,
    lengths: Int[Array | np.ndarray, " b"] | None = None,
) -> Float[np.ndarray, "G N r"]:
    """The V that fits the outputs of `reduced`, which is `layer` with h near `V` g.

    `inputs`, `gradients` [b L d_model] and `lengths` are as in
    `compress.selective.moments.state_moments`.
    """
    G, N, r = V.shape
    with jax.enable_x64(True):
        wide, small = widen(layer), widen(reduced)
        moments, right = np.zeros((G, r, r, N, N)), np.zeros((G, r, N))
        for part in parts(inputs, gradients, wide.eigenvalues.size, lengths):
            pieces = list(part.pieces(len(wide.eigenvalues)))
            outputs, squares = zip(*(_outputs(wide, piece) for piece in pieces), strict=True)
            weights = jnp.mean(jnp.stack(squares), axis=0)
            for piece, y in zip(pieces, outputs, strict=True):
                sums = _normal_equations(wide, small, piece, y, weights)
                moments, right = moments + np.asarray(sums[0]), right + np.asarray(sums[1])
    solved = [_solve(*of_group) for of_group in zip(moments, right, V, strict=True)]
    return np.stack(solved)


def _solve(moments, right, V):
    r, N = right.shape
    matrix = moments.transpose(0, 2, 1, 3).reshape(r * N, r * N)
    known = V.T.reshape(-1)
    missing = right.reshape(-1) - matrix @ known
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), np.finfo(float).tiny))
    matrix = matrix * scale[:, None] * scale + RIDGE * np.eye(r * N)
    change = scale * scipy.linalg.solve(matrix, scale * missing, assume_a="pos")
    return (known + change).reshape(r, N).T


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
    part: Part,
    y: Float[Array, "b L d"],
    weights: Float[Array, " d"],
) -> tuple[Float[Array, "G r r N N"], Float[Array, "G r N"]]:
    u = jnp.asarray(part.u)
    signals, small = jax.vmap(layer.signals)(u), jax.vmap(reduced.signals)(u)
    G = layer.groups

    def look(g, at, counts, C, y):
        k, b, d, r = g[at].shape
        weigh = jnp.sqrt(weights * counts[..., None])
        g = (g[at] * weigh[..., None]).reshape(k * b, G, d // G, r)
        y = (y[at] * weigh).reshape(k * b, G, d // G)
        C = C[at].reshape(k * b, G, -1)
        squares = jnp.einsum("sgdm,sgdl->sgml", g, g)
        products = jnp.einsum("sgdm,sgd->sgm", g, y)
        outer = C[..., :, None] * C[..., None, :]
        return (
            jnp.einsum("sgml,sgnp->gmlnp", squares, outer),
            jnp.einsum("sgm,sgn->gmn", products, C),
        )

    return forward(reduced.eigenvalues, small, part, look, signals.C, y)[0]
