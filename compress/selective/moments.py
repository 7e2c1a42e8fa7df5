"""Second moments of the states of a selective layer on data, channel by channel. A selective layer
has no Gramians, since decay, input and output depend on the data. Measured moments replace them.
With h_k the states of a channel and mu_k the gradient that comes back to them,

    h_k  = exp(dt_k A) h_{k-1} + dt_k x_k B_k,    mu_k = exp(dt_{k+1} A) mu_{k+1} + C_k dy_k,

P = E[h h^T] replaces the controllability Gramian and Q = E[mu mu^T] the observability Gramian, dy
being the gradient by the channel's output. Replacing h by V W h changes the result by
mu^T (1 - V W) h.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from zoo import AbstractMambaSSM
from zoo.recurrence.selective import Signals

from ..linear.data_gramians import counted
from ..model.record import SLICE
from ..numerics.precision import widen

SAMPLES = 2048
"""Most samples that moments are taken over. From more samples, a random part of this size is taken,
spread evenly. A sample counts once for all channels together."""

SEQUENCES = 32
"""Fewest sequences that the layer is run on. From more sequences, evenly spread ones are taken
until they have twice as many samples as are needed."""

STATES_AT_ONCE = 2**22
"""States in memory at the same time, over sequences, samples and channels."""

SIGNALS_AT_ONCE = 2**21
"""Numbers of one signal in memory at the same time, over sequences, samples and channels."""


class StateMoments(NamedTuple):
    """Second moments of the states of the d channels of a selective layer, in double precision."""

    A: Float[np.ndarray, "d N"]
    """Eigenvalues, per unit of dt."""
    P: Float[np.ndarray, "d N N"]
    """E[h h^T]."""
    Q: Float[np.ndarray, "d N N"]
    """E[mu mu^T]."""
    groups: int
    """Groups of channels that share B and C: d / groups neighbours each."""

    def grouped(self) -> list[tuple[Any, Any, Any]]:
        """P, Q [N N] and A [N] of each group: of its channels the sum, for A the average.

        The average is that of log(-A), with weights sqrt(tr P tr Q), so that it fits the channels
        with the largest signals.
        """
        traces = [np.trace(moments, axis1=1, axis2=2) for moments in (self.P, self.Q)]
        weights = np.maximum(np.sqrt(traces[0] * traces[1]), np.finfo(float).tiny)
        members = np.split(np.arange(len(self.A)), self.groups)
        return [
            (
                np.sum(self.P[own], axis=0),
                np.sum(self.Q[own], axis=0),
                -np.exp(np.average(np.log(-self.A[own]), axis=0, weights=weights[own])),
            )
            for own in members
        ]


def state_moments(
    layer: AbstractMambaSSM,
    inputs: Any,
    gradients: Any = None,
    lengths: Int[Array | np.ndarray, " b"] | None = None,
) -> StateMoments:
    """The moments of `layer` on `inputs` [b L d_model].

    Of padded sequences the first `lengths` samples count.

    `gradients` [b L d_model] are those by its outputs. Without them all outputs have equal weight
    at every sample. The weight of a channel then follows from the gate and its row of out_proj.
    """
    with jax.enable_x64(True):
        wide = widen(layer)
        A = np.asarray(wide.eigenvalues)
        d, N = A.shape
        P, Q, seen = np.zeros((d, N, N)), np.zeros((d, N, N)), 0
        for part in parts(inputs, gradients, d * N, lengths):
            for piece in part.pieces(d):
                sums = _sums(wide, piece)
                P, Q = P + np.asarray(sums[0]), Q + np.asarray(sums[1])
            seen += int(np.sum(part.counts))
    return StateMoments(A, P / seen, Q / seen, wide.groups)


def contributions(
    layer: AbstractMambaSSM,
    inputs: Any,
    gradients: Any = None,
    lengths: Int[Array | np.ndarray, " b"] | None = None,
) -> Float[np.ndarray, "G N N"]:
    """E[c c^T], summed over the channels of each group, of the states' parts c_n = dy C_n h_n.

    Leaving out the states D changes a channel's output by the sum of their parts, so that the sum
    of all entries in D is the mean square of the change. The other arguments are those of
    `state_moments`.
    """
    with jax.enable_x64(True):
        wide = widen(layer)
        total, seen = np.zeros(()), 0
        d, N = wide.eigenvalues.shape
        for part in parts(inputs, gradients, d * N, lengths):
            for piece in part.pieces(d):
                total = total + np.asarray(_contributions(wide, piece))
            seen += int(np.sum(part.counts))
    return total / seen


class Part(NamedTuple):
    """Some sequences in chunks of T samples, with the samples that are used."""

    u: Float[np.ndarray, "b L d_model"]
    g: Float[np.ndarray, "b L d_model"]
    at: Int[np.ndarray, "chunks kept"]
    """The samples of each chunk that are looked at."""
    counts: Float[np.ndarray, "chunks kept b"]
    """One for those inside a sequence, zero for padding and those beyond its end."""

    def pieces(self, channels: int) -> "Iterator[Part]":
        """The same, of fewer sequences at a time where they are long and of many channels."""
        b, L = self.u.shape[:2]
        fit = max(1, SIGNALS_AT_ONCE // (L * channels))
        rows = min(b, 2 ** fit.bit_length() // 2)
        for own in (slice(k, k + rows) for k in range(0, b, rows)):
            yield Part(self.u[own], self.g[own], self.at, self.counts[..., own])

    def by_chunk(self, a: Array) -> Array:
        """[b L ...] as [chunks T b ...], padded with zeros: samples of no duration."""
        b, L = a.shape[:2]
        pad = -L % len(self.at)
        a = jnp.pad(a, [(0, 0), (0, pad), *[(0, 0)] * (a.ndim - 2)])
        return jnp.moveaxis(a, 0, 1).reshape(len(self.at), -1, b, *a.shape[2:])

    def by_sequence(self, a: Array) -> Array:
        """The inverse of `by_chunk`."""
        return jnp.moveaxis(a.reshape(-1, *a.shape[2:])[: self.u.shape[1]], 0, 1)


def parts(
    inputs: Any,
    gradients: Any,
    states: int,
    lengths: Int[Array | np.ndarray, " b"] | None = None,
    samples: int = SAMPLES,
) -> Iterator[Part]:
    """The sequences, `SLICE` at a time; `states` is how many of them a sample of one has.

    About `samples` samples are used, the same ones for arrays of the same shape.
    """
    inputs = np.asarray(inputs)
    if gradients is None:
        gradients = np.random.default_rng(0).standard_normal(inputs.shape)
    gradients, counts = np.asarray(gradients), counted(inputs, lengths)
    b, L, _ = inputs.shape
    most = max(SEQUENCES, -(-2 * samples // L))
    if b > most:
        spread = np.linspace(0, b - 1, most).round().astype(int)
        inputs, gradients, counts, b = inputs[spread], gradients[spread], counts[spread], most
    chunks = -(-L // max(1, min(L, STATES_AT_ONCE // (SLICE * states))))
    T = -(-L // chunks)
    kept = max(1, min(T, -(-T * samples // max(1, int(np.sum(counts))))))
    rng = np.random.default_rng(0)
    for k in range(0, b, SLICE):
        at = rng.permuted(np.tile(np.arange(T), (chunks, 1)), axis=1)[:, :kept]
        rows = np.arange(k, k + SLICE)
        real, rows = rows < b, np.minimum(rows, b - 1)
        within = np.pad(counts[rows], [(0, 0), (0, chunks * T - L)])
        inside = within[:, at + T * np.arange(chunks)[:, None]].transpose(1, 2, 0) & real
        u, g = (x[rows].astype(np.float64) for x in (inputs, gradients))
        g = np.where(counts[rows][..., None], g, 0)
        yield Part(u, g, at, inside.astype(np.float64))


@eqx.filter_jit
def _sums(
    layer: AbstractMambaSSM, part: Part
) -> tuple[Float[Array, "d N N"], Float[Array, "d N N"]]:
    """The sums of h h^T and of mu mu^T over the samples that count."""
    signals = jax.vmap(layer.signals)(jnp.asarray(part.u))
    P, y = forward(layer.eigenvalues, signals, part, _squares)
    dy = channel_gradients(layer, part, y)
    return P, backward(layer.eigenvalues, signals, dy, part, _squares)


@eqx.filter_jit
def _contributions(layer: AbstractMambaSSM, part: Part) -> Float[Array, "G N N"]:
    signals, A, G = jax.vmap(layer.signals)(jnp.asarray(part.u)), layer.eigenvalues, layer.groups
    _, y = forward(A, signals, part, lambda *_: ())

    def look(h, at, counts, C, dy):
        c = h[at] * jnp.repeat(C[at], len(A) // G, axis=2) * dy[at][..., None]
        c = c.reshape(*c.shape[:2], G, len(A) // G, -1)
        return jnp.einsum("kbgdn,kbgdm,kb->gnm", c, c, counts)

    dy = channel_gradients(layer, part, y)
    return forward(A, signals, part, look, signals.C, dy)[0]


def forward(
    A: Float[Array, "d N"],
    signals: Signals,
    part: Part,
    look: Callable[..., Any],
    *beside: Array,
    stack: bool = False,
) -> tuple[Any, Float[Array, "b L d"]]:
    """The sum of what `look` sees in all chunks, or the `stack` of it, and the channels' outputs.

    It is given the states [T b d N], the samples of the chunk to be looked at, and how much they
    count, as in `Part`, and of each array `beside` [b L ...] the chunk.
    """

    def step(h, sample):
        x, dt, B, C = sample
        h = jnp.exp(dt[..., None] * A) * h + (dt * x)[..., None] * of_channels(B, len(A))
        return h, (h, jnp.sum(h * of_channels(C, len(A)), axis=-1))

    others = tuple(part.by_chunk(a) for a in beside)
    seen, y = _over_chunks(A, step, signals, part, look, *others, stack=stack)
    return seen, part.by_sequence(y)


def backward(
    A: Float[Array, "d N"],
    signals: Signals,
    dy: Float[Array, "b L d"],
    part: Part,
    look: Callable[..., Any],
    *,
    stack: bool = False,
) -> Any:
    """What `look` sees of the gradients mu [T b d N] by the states, as in `forward`."""

    def step(later, sample):
        dt, C, dy = sample
        mu = later + of_channels(C, len(A)) * dy[..., None]
        return jnp.exp(dt[..., None] * A) * mu, (mu, ())

    samples = (signals.dt, signals.C, dy)
    return _over_chunks(A, step, samples, part, look, stack=stack, reverse=True)[0]


def _over_chunks(
    A: Float[Array, "d N"],
    step: Callable[..., Any],
    samples: tuple[Array, ...],
    part: Part,
    look: Callable[..., Any],
    *others: Array,
    stack: bool,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """What `look` sees of the states that `step` goes through, and what else it puts out."""

    def chunk(carry, inputs):
        h, total = carry
        samples, others = inputs
        h, (states, out) = jax.lax.scan(step, h, samples, reverse=reverse)
        seen = look(states, *others)
        if stack:
            return (h, total), (seen, out)
        return (h, jax.tree.map(jnp.add, total, seen)), ((), out)

    inputs = tuple(part.by_chunk(a) for a in samples)
    beside = (part.at, part.counts, *others)
    start, total = jnp.zeros((len(part.u), *A.shape), A.dtype), ()
    if not stack:
        T = inputs[0].shape[1]
        seen = jax.eval_shape(look, jnp.zeros((T, *start.shape)), *(a[0] for a in beside))
        total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), seen)
    (_, total), (stacked, out) = jax.lax.scan(
        chunk, (start, total), (inputs, beside), reverse=reverse
    )
    return stacked if stack else total, out


def _squares(
    h: Float[Array, "T b d N"], at: Int[Array, " kept"], counts: Float[Array, "kept b"]
) -> Float[Array, "d N N"]:
    return jnp.einsum("kbdn,kbdm,kb->dnm", h[at], h[at], counts)


def of_channels(a: Float[Array, "b G N"], channels: int) -> Float[Array, "b d N"]:
    """An array with one entry for each group, repeated for its channels."""
    return jnp.repeat(a, channels // a.shape[1], axis=1)


def channel_gradients(
    layer: AbstractMambaSSM, part: Part, y: Float[Array, "b L d"]
) -> Float[Array, "b L d"]:
    """The gradients by the channels' outputs `y`, from those by the layer's."""

    def of_one(u: Array, g: Array, y: Array) -> Array:
        return jax.vjp(lambda y: layer.emit(u, y), y)[1](g)[0]

    return jax.vmap(of_one)(jnp.asarray(part.u), jnp.asarray(part.g), y)
