"""Gramians from data, and over a finite number of samples. The inputs of a trained layer are far
from white noise. Its controllability Gramian is then replaced by the covariance of the states
themselves, and that of the real map, of which y = Re(C x) is one half: with x and its conjugate as
states,

    E[x x^H] = L L^H  and  E[x x^T] = L L^T,  the factor of the doubled system being [L; conj(L)].

Likewise the observability Gramian is replaced by the covariance of the gradient by the states,
which comes back from the layer's output. All factors here are of this kind, and
`compress.linear.balance.truncate` cuts with them. There is then no error bound, and no guarantee
that the result is stable: it must be checked.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from zoo import DiagonalLTI
from zoo.masks import rows_within
from zoo.typing import checked

from ..model.record import SLICE
from ..numerics.padding import padded

CHUNK = 128
"""Samples whose states are in memory at the same time."""

MOST = 64
"""Sequences whose states are in memory at the same time, for layers with up to `WIDE` states."""

WIDE = 512


@checked
def data_factor(
    lti: DiagonalLTI,
    u: Float[Array | np.ndarray, "b L m"],
    lengths: Int[Array | np.ndarray, " b"] | None = None,
) -> Complex[np.ndarray, "n k"]:
    """The factor of the states' second moments under the inputs `u`, k <= 2n.

    Each sequence starts from zero; the mean is over all samples of all sequences. Of padded
    sequences the first `lengths` samples are used.
    """
    return _factor(second_moments(lti.log_lam, lti.B, u, counted(u, lengths)))


@checked
def gradient_factor(
    lti: DiagonalLTI,
    g: Float[Array | np.ndarray, "b L p"],
    lengths: Int[Array | np.ndarray, " b"] | None = None,
) -> Complex[np.ndarray, "n k"]:
    """The factor of the second moments of the gradient by the states, k <= 2n.

    `g` is the gradient by the outputs y = Re(C x). That by the states is a recurrence backwards in
    time, mu_k = conj(lam) mu_{k+1} + conj(C)^T g_k / 2 in the coordinates of the doubled system.
    `lengths` are as in `data_factor`.
    """
    log_lam, C = np.conj(np.asarray(lti.log_lam)), np.conj(np.asarray(lti.C))
    return _factor(second_moments(log_lam, C.T / 2, g[:, ::-1], counted(g, lengths)[:, ::-1]))


@checked
def horizon_factors(
    lti: DiagonalLTI, horizon: int
) -> tuple[Complex[np.ndarray, "n k"], Complex[np.ndarray, "n l"]]:
    """Factors of the real map's Gramians summed over `horizon` samples.

    ValueError for a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"`horizon` must be 1 or more samples, got {horizon}")
    log_lam, B, C = (np.asarray(x, np.complex128) for x in (lti.log_lam, lti.B, lti.C))
    return (
        _factor(white_moments(log_lam, B, horizon)),
        _factor(white_moments(log_lam.conj(), C.conj().T / 2, horizon)),
    )


def sample_count(n: int) -> int:
    """Number of samples for the moments of n states. From more samples, a random part is taken,
    spread evenly.

    With 128 states, 2048 lost no more than all 19 200 of the digits
    (`results/calibration_digits.md`): 16 for each state, of two real numbers. These are four times
    as many, and never few.
    """
    return max(4096, 64 * n)


def counted(u: Any, lengths: Int[Array | np.ndarray, " b"] | None) -> Bool[np.ndarray, "b L"]:
    """Mask of the samples of `u` [b L ...] that are not padding: the first `lengths` of each
    sequence."""
    own: Any = lengths
    return rows_within(own, *np.shape(u)[:2])


def second_moments(
    log_lam, B, u: Any, counts: Bool[np.ndarray, "b L"], *, with_inputs: bool = False
) -> Float[np.ndarray, "k k"]:
    """The mean of z z^T over samples that count, z = (Re x, Im x), or (Re x, Im x, u).

    The other samples have zero input.
    """
    n, m = B.shape
    log_lam, B = padded(np.asarray(log_lam), np.asarray(B))
    size = 2 * len(B) + (m if with_inputs else 0)
    total, seen = np.zeros((size, size)), 0
    kept = max(1, min(CHUNK, -(-CHUNK * sample_count(n) // max(1, int(np.sum(counts))))))
    rows = min(MOST if n <= WIDE else SLICE, -(-len(u) // SLICE) * SLICE)
    rng = np.random.default_rng(0)
    chunks = -(-u.shape[1] // CHUNK)
    with jax.enable_x64(True):
        arrays = [jnp.asarray(np.asarray(x), jnp.complex128) for x in (log_lam, B)]
        for k in range(0, len(u), rows):
            own = counts[k : k + rows]
            part = np.zeros((rows, *u.shape[1:]))
            part[: len(own)] = np.where(own[..., None], u[k : k + rows], 0)
            inside = np.zeros((rows, chunks * CHUNK), bool)
            inside[: len(own), : u.shape[1]] = own
            at = rng.permuted(np.tile(np.arange(CHUNK), (chunks, 1)), axis=1)[:, :kept]
            looked_at = inside[:, at + CHUNK * np.arange(chunks)[:, None]].transpose(1, 2, 0)
            seen += int(np.sum(looked_at))
            given = jnp.asarray(part), at, jnp.asarray(looked_at, jnp.float64)
            total += np.asarray(_sum_of_squares(*arrays, *given, with_inputs))
    used = np.concatenate([np.arange(n), len(B) + np.arange(n), np.arange(2 * len(B), size)])
    return total[used][:, used] / max(1, seen)


@partial(jax.jit, static_argnums=5)
def _sum_of_squares(log_lam, B, u, at, counts, with_inputs):
    """The sum of z z^T over samples of u [b L m].

    `at` [chunks k] says which ones of each chunk, `counts` [chunks k b] for which sequences.
    """
    lam = jnp.exp(log_lam)
    rate, turn = jnp.real(lam), jnp.imag(lam)
    parts_of_B = jnp.concatenate([jnp.real(B), jnp.imag(B)])
    b, length, m = u.shape
    pad = -length % CHUNK
    u = jnp.pad(u, ((0, 0), (0, pad), (0, 0))).reshape(b, -1, CHUNK, m).transpose(1, 2, 0, 3)
    size = 2 * lam.size + (m if with_inputs else 0)

    def step(x, driven):
        (re, im), (by_re, by_im) = x, jnp.split(driven, 2, axis=-1)
        x = rate * re - turn * im + by_re, rate * im + turn * re + by_im
        return x, x

    def chunk(carry, inputs):
        x, total = carry
        u, at, counts = inputs
        driven = (u.reshape(-1, m) @ parts_of_B.T).reshape(CHUNK, b, -1)
        x, states = jax.lax.scan(step, x, driven)
        z = jnp.concatenate([a[at] for a in (*states, *([u] if with_inputs else []))], axis=-1)
        z = (z * counts[..., None]).reshape(-1, size)
        return (x, total + z.T @ z), None

    start = (jnp.zeros((b, lam.size), u.dtype),) * 2, jnp.zeros((size, size), u.dtype)
    return jax.lax.scan(chunk, start, (u, at, counts))[0][1]


def white_moments(
    log_lam: Complex[np.ndarray, " n"], B: Complex[np.ndarray, "n m"], horizon: int | None = None
) -> Float[np.ndarray, "k k"]:
    """E[z z^T] of z = (Re x, Im x), k = 2n, after `horizon` samples of white noise, or in the
    limit."""
    sums = []
    for other, log_other in ((B.conj(), log_lam.conj()), (B, log_lam)):
        rate = log_lam[:, None] + log_other
        gone = -1 if horizon is None else np.expm1(horizon * rate)
        sums.append((B @ other.T) * gone / np.expm1(rate))
    P, N = sums
    return np.block([[(P + N).real, (N - P).imag], [(N + P).imag, (P - N).real]]) / 2


def _factor(moments):
    """[L; conj(L)]'s L from the second moments of (Re x, Im x), largest columns first."""
    values, vectors = np.linalg.eigh((moments + moments.T) / 2)
    n = len(values) // 2
    keep = values > len(values) * np.finfo(float).eps * max(values[-1], 0.0)
    keep[-1] = True  # one column at least, also of silence
    Z = (vectors[:, keep] * np.sqrt(np.maximum(values[keep], 0)))[:, ::-1]
    return Z[:n] + 1j * Z[n:]
