"""Linear time-invariant stand-ins for a selective layer, channel by channel, from data.

A selective layer is not a linear time-invariant system. Several systems can replace it:

- "mean": every coefficient by its average over the data, decay E[exp(dt A)], input E[dt B], output
  E[C], as CompreSSM proposes for Mamba (arXiv 2510.02823, section 5). Averages of B and C of
  changing sign are small, so it understates how many states a channel uses;
- "moments": the same decay, but second moments instead of averages. The input matrix is a root
  of E[(dt x)^2 B B^T], so that the controllability Gramian is that of the states under inputs
  that know nothing of each other, and the output matrix one of E[dy^2 C C^T], dy being the
  gradient by the channel's output: without gradients E[dy^2] is what the gate lets through times
  the squared norm of the channel's row of out_proj.

`compress` itself takes the states' own moments (`compress.selective.moments`), in which decay,
input and output stay together. The way back from a basis (V, W) to a layer is
`compress.selective.cut.fold`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from compress.numerics.precision import widen
from compress.selective.moments import Part, channel_gradients, forward, parts
from zoo import AbstractMambaSSM, DiagonalLTI

KINDS = ("mean", "moments")


class ChannelSystems(NamedTuple):
    """A system of N states for each of d channels, with m inputs and as many outputs."""

    log_lam: Float[np.ndarray, "d N"]
    B: Float[np.ndarray, "d N m"]
    C: Float[np.ndarray, "d m N"]

    def lti(self, channel: int) -> DiagonalLTI:
        """The system of one channel."""
        m = self.B.shape[2]
        log_lam, B, C = (np.asarray(a[channel], np.complex128) for a in self)
        return DiagonalLTI(log_lam, B, C, np.zeros(m))

    def gramians(self) -> tuple[Float[np.ndarray, "d N N"], Float[np.ndarray, "d N N"]]:
        """Controllability and observability Gramians of every channel."""
        gap = -np.expm1(self.log_lam[:, :, None] + self.log_lam[:, None])
        C = np.swapaxes(self.C, 1, 2)
        return self.B @ np.swapaxes(self.B, 1, 2) / gap, C @ np.swapaxes(C, 1, 2) / gap


def to_lti(
    layer: AbstractMambaSSM, inputs: Any, gradients: Any = None, *, kind: str = "moments"
) -> ChannelSystems:
    """The stand-in of `kind` for every channel of `layer` on `inputs` [b L d_model].

    `gradients` [b L d_model] are those by its outputs; without them all outputs matter alike. For
    "mean" they do not count. ValueError for another `kind`.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}")
    with jax.enable_x64(True):
        wide = widen(layer)
        A = wide.eigenvalues
        sums = [
            jax.tree.map(np.asarray, _sums(wide, part, kind == "mean"))
            for part in parts(inputs, gradients, A.size)
        ]
    decay, into, out, count = (np.sum(values, axis=0) for values in zip(*sums, strict=True))
    decay, into, out = decay / count, into / count, out / count
    if kind == "mean":
        return ChannelSystems(np.log(decay), into[:, :, None], out[:, None])
    return ChannelSystems(np.log(decay), _root(into), np.swapaxes(_root(out), 1, 2))


@eqx.filter_jit
def _sums(layer: AbstractMambaSSM, part: Part, mean: bool) -> tuple[Array, Array, Array, Array]:
    """Over real sequences, the sums of decay, what goes in, what comes out, and how many."""
    u, A, G = jnp.asarray(part.u), layer.eigenvalues, layer.groups
    signals = jax.vmap(layer.signals)(u)
    b, L, d = signals.x.shape
    real = jnp.max(part.counts, axis=(0, 1))
    decay = jnp.einsum("b,bdn->dn", real, _mean_decay(signals.dt, A)) * L
    grouped = (b, L, G, d // G)
    dt, x = (a.reshape(grouped) for a in (signals.dt, signals.x))
    if mean:
        into = jnp.einsum("b,blgd,blgn->gdn", real, dt, signals.B).reshape(d, -1)
        out = jnp.repeat(jnp.einsum("b,blgn->gn", real, signals.C), d // G, axis=0)
        return decay, into, out, jnp.sum(real) * L
    _, y = forward(A, signals, part, lambda *_: ())
    dy = channel_gradients(layer, part, y).reshape(grouped)
    into, out = (
        jnp.einsum("b,blgd,blgn,blgm->gdnm", real, w**2, rows, rows).reshape(d, *A.shape[1:] * 2)
        for w, rows in ((dt * x, signals.B), (dy, signals.C))
    )
    return decay, into, out, jnp.sum(real) * L


def _mean_decay(dt: Float[Array, "b L d"], A: Float[Array, "d N"]) -> Float[Array, "b d N"]:
    """exp(dt A) averaged over the samples, one after the other."""

    def step(total, dt):
        return total + jnp.exp(dt[..., None] * A), None

    start = jnp.zeros((len(dt), *A.shape), A.dtype)
    return jax.lax.scan(step, start, jnp.swapaxes(dt, 0, 1))[0] / dt.shape[1]


def _root(moments: Float[np.ndarray, "d N N"]) -> Float[np.ndarray, "d N N"]:
    values, vectors = np.linalg.eigh(moments)
    return vectors * np.sqrt(np.maximum(values, 0))[:, None]
