"""Forms of one linear system over a batch of sequences, with equal results at different costs.

Each takes the system, the inputs u [b L m], the first states x0 [b n] (None for zero) and a chunk
size, and returns the outputs Re(C x_k) [b L p] and the last states [b n] of x_k = lam x_{k-1} + B
u_k, lam = exp(log_lam). For the backward pass each stores at most the states between chunks. With
chunks of one sample those are all states. Powers are exp(k log_lam), which keeps its digits in long
chunks.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..derivative import both_ways
from ..typing import checked
from .carry import carry
from .compiled import SYSTEMS, has_tiles, lti_gradients, lti_outputs, native
from .pallas import with_kernel
from .parts import (
    as_rows,
    fast_size,
    parts_times,
    real_of_times,
    real_output,
    real_states,
    states_before,
    two_parts,
)
from .samples import (
    batch_leading,
    joined,
    sample_at,
    time_leading,
    with_sample,
)

LogLam = Complex[Array, " d_state"]
InputMatrix = Complex[Array, "d_state inputs"]
OutputMatrix = Complex[Array, "outputs d_state"]
Inputs = Float[Array, "batch length inputs"]
States = Complex[Array, "batch d_state"]
Result = tuple[Float[Array, "batch length outputs"], States]


@checked
def scan(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """Sample after sample. The states inside a chunk are computed, used and dropped, and recomputed
    in the backward pass. Only the states between chunks are stored. Chunks are of equal length, and
    near `chunk`, as far as L allows; the samples that are left over make a last short one.
    """
    b, L, m = u.shape
    K = -(-L // chunk)
    T = L // K
    whole = K * T
    x = states_before(log_lam, u, x0)
    outputs = []
    for piece, chunks in ((u[:, :whole], K), (u[:, whole:], 1)):
        if piece.size:
            y, x = _scan_chunks(log_lam, B, C, piece.reshape(b, chunks, -1, m), x)
            outputs.append(y.reshape(b, piece.shape[1], -1))
    return joined(outputs), x


def _scan_forward(log_lam, B, C, u, x0):
    """Outputs and last states of chunks u [b K T m].

    Only arrays with n channels, chunk by chunk, are transposed to have time as the first axis."""
    lam = jnp.exp(log_lam)
    b, K, T, _ = u.shape

    def one(k, carry):
        x, y, before = carry
        sources = _turned(parts_times(B, sample_at(u, k, axis=1)))
        after, states = _states(lam, sources, x)
        y = with_sample(y, real_of_times(C, _turned(states)), k, axis=1)
        return after, y, with_sample(before, x, k)

    y = jnp.zeros((b, K, T, len(C)), u.dtype)
    before = jnp.zeros((K, *x0.shape), x0.dtype)
    last, y, before = jax.lax.fori_loop(0, K, one, (x0, y, before))
    return (y, last), (log_lam, B, C, u, before)


def _scan_tangent(kept, tangents):
    *arrays, before = kept
    return jax.jvp(lambda *a: _scan_forward(*a)[0], (*arrays, before[0]), tangents)[1]


def _scan_backward(kept, cotangents):
    """With g_k the cotangent of x_k: g_k = C^T dy_k + lam g_{k+1}, from the last sample on.

    JAX's cotangents of complex numbers transpose without conjugation. Then du_k = Re(B^T g_k),
    dB = sum g_k u_k^T, dC = sum dy_k x_k^T, dlog_lam = lam * sum g_k x_{k-1}, dx_0 = lam g_1.
    """
    log_lam, B, C, all_u, before = kept
    all_dy, dx = cotangents
    lam = jnp.exp(log_lam)
    K = len(before)

    def adjoint(carry, inputs):
        later, product = carry
        source, previous = inputs
        g = later + jax.lax.complex(*source)
        return (lam * g, product + g * jax.lax.complex(*previous)), (jnp.real(g), jnp.imag(g))

    def one(i, carry):
        later, product, dB, dC, du = carry
        k = K - 1 - i
        u, dy, x = sample_at(all_u, k, axis=1), sample_at(all_dy, k, axis=1), sample_at(before, k)
        first = jnp.real(x)[None], jnp.imag(x)[None]
        sources = _turned(parts_times(B, u))
        sources = tuple(jnp.concatenate(pair) for pair in zip(first, sources, strict=True))
        _, states = _states(lam, sources, jnp.zeros_like(x))
        previous, current = [s[:-1] for s in states], _turned([s[1:] for s in states])
        (later, product), gs = jax.lax.scan(
            adjoint,
            (later, product),
            (_turned(parts_times(C.T, dy)), previous),
            reverse=True,
        )
        gs = _turned(gs)
        dB = [total + as_rows(part).T @ as_rows(u) for total, part in zip(dB, gs, strict=True)]
        dC = [
            total + as_rows(dy).T @ as_rows(part) for total, part in zip(dC, current, strict=True)
        ]
        return later, product, dB, dC, with_sample(du, real_of_times(B.T, gs), k, axis=1)

    nothing = [jnp.zeros(B.shape, all_u.dtype)] * 2, [jnp.zeros(C.shape, all_u.dtype)] * 2
    start = dx, jnp.zeros_like(dx), *nothing, jnp.zeros_like(all_u)
    dx0, product, dB, dC, du = jax.lax.fori_loop(0, K, one, start)
    dlog_lam = lam * jnp.sum(product, axis=0)
    return dlog_lam, jax.lax.complex(*dB), jax.lax.complex(*dC), du, dx0


_scan_chunks = both_ways(_scan_forward, _scan_tangent, _scan_backward)


def _turned(parts):
    """[b T n] -> [T b n] and back, of each part."""
    return tuple(jnp.swapaxes(part, 0, 1) for part in parts)


def _states(lam, b, x):
    """The state after, and all states as real and imaginary parts, of the inputs `b`, likewise."""

    def step(x, b):
        x = lam * x + jax.lax.complex(*b)
        return x, (jnp.real(x), jnp.imag(x))

    return jax.lax.scan(step, x, b)


@checked
def fused(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """As `scan`, in one kernel on each core of a CPU, whose states stay in the first-level cache.

    Kernels exist if the package was installed with a compiler; otherwise `scan` is used.
    """
    return _fused_or_scan(log_lam, B, C, u, x0, chunk, tiles=False)


@checked
def tiles(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """As `fused`, with products in bfloat16 by the tiles of a CPU (AMX): inputs, B, C, the states
    where they leave, and their cotangents are rounded. Sums, the recurrence and its states are in
    single precision. CPUs without tiles take `fused`.
    """
    tiles = u.dtype == jnp.float32 and has_tiles()
    return _fused_or_scan(log_lam, B, C, u, x0, chunk, tiles=tiles)


def _fused_or_scan(log_lam, B, C, u, x0, chunk, *, tiles):
    x = states_before(log_lam, u, x0)
    if not native(u.dtype, SYSTEMS):
        return scan(log_lam, B, C, u, x, chunk)
    parts = (jnp.stack(two_parts(each)) for each in (jnp.exp(log_lam), B, C))
    y, last = _fused(chunk, tiles, *parts, u, real_states(x))
    return y, jax.lax.complex(last[:, 0], last[:, 1])


@checked
def matmul(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """All chunks at once, as matrix products with T x T blocks of impulse responses.

    With x the state before a chunk u_1..u_T, that after it is lam^T x + sum_s lam^(T-s) B u_s, and
    the outputs are y_t = Re(C lam^t x) + sum_{s <= t} Re(C lam^(t-s) B) u_s. Only the first is
    sequential, from chunk to chunk. For chunks of one sample the outputs are Re(C x_k), with the
    states x_k after them.
    """
    b, L, _ = u.shape
    whole = L - L % chunk
    x = real_states(states_before(log_lam, u, x0))
    outputs = []
    for piece, T in ((u[:, :whole], chunk), (u[:, whole:], L - whole)):
        if piece.size:
            chunks = piece.reshape(b, piece.shape[1] // T, -1)
            y, x = _matmul_chunks(log_lam, B, C, chunks, x, T)
            outputs.append(y.reshape(b, piece.shape[1], -1))
    return joined(outputs), jax.lax.complex(x[:, 0], x[:, 1])


def _matmul_chunks(log_lam, B, C, u, x, T):
    """Outputs [b K T*p] and last state, as `carry` has them, of chunks [b K T*m]."""
    n, m = B.shape
    p = C.shape[0]
    b, K, _ = u.shape
    u = as_rows(u)  # so that XLA finds one product of matrices in the backward pass too
    powers = jnp.exp(jnp.arange(T + 1)[:, None] * log_lam)
    into = (powers[:T][::-1, :, None] * B).transpose(1, 0, 2).reshape(n, T * m)
    sources = (u @ jnp.concatenate(two_parts(into)).T).reshape(b, K, 2, n)
    if T == 1:
        after, x = carry("after", *two_parts(powers[T]), sources, x)
        y = after.reshape(b * K, 2 * n) @ real_output(C).T
        return y.reshape(b, K, p), x

    before, x = carry("before", *two_parts(powers[T]), sources, x)
    out = powers[:, None, :] * C
    response = real_of_times(B.T, two_parts(out[:T].reshape(T * p, n))).reshape(T, p, m)
    lag = jnp.arange(T)[:, None] - jnp.arange(T)
    within = jnp.where((lag >= 0)[:, :, None, None], response[jnp.maximum(lag, 0)], 0)
    within = within.transpose(0, 2, 1, 3).reshape(T * p, T * m)
    onto = real_output(out[1:].reshape(T * p, n))
    y = u @ within.T + before.reshape(b * K, 2 * n) @ onto.T
    return y.reshape(b, K, T * p), x


def _fused(chunk, tiles, *arguments):
    """Outputs and last states, by real and imaginary parts of lam, B, C, u [b L m], x0 [b 2 n]."""
    rules = (_fused_forward, _fused_tangent, _fused_backward)
    return both_ways(*(partial(rule, chunk, tiles) for rule in rules))(*arguments)


def _fused_forward(chunk, tiles, *arguments):
    def without_states(*arguments):
        b, L, _ = arguments[3].shape
        before = jnp.zeros((b, -(-L // chunk), *arguments[0].shape), arguments[3].dtype)
        return *_unfused(chunk, *arguments), before

    kernel = partial(lti_outputs, chunk=chunk, tiles=tiles)
    y, last, before = with_kernel(without_states, *arguments, cpu=kernel)
    return (y, last), (*arguments, before)


def _fused_tangent(chunk, tiles, kept, tangents):
    return jax.jvp(partial(_unfused, chunk), kept[:5], tangents)[1]


def _fused_backward(chunk, tiles, kept, cotangents):
    def by_scan(*arrays):
        return jax.vjp(partial(_unfused, chunk), *arrays[:5])[1](arrays[6:])

    def by_kernel(lam, B, C, u, x0, before, dy, dlast):
        return lti_gradients(lam, B, C, u, before, dy, dlast, chunk=chunk, tiles=tiles)

    return with_kernel(by_scan, *kept, *cotangents, cpu=by_kernel)


def _unfused(chunk, lam, B, C, u, x0):
    lam, B, C = (jax.lax.complex(*each) for each in (lam, B, C))
    y, x = scan(jnp.log(lam), B, C, u, jax.lax.complex(x0[:, 0], x0[:, 1]), chunk)
    return y, real_states(x)


@checked
def fft(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """Convolution with the impulse response Re(C lam^k B), in the frequency domain.

    The response is made as (C lam^(iT)) (lam^j B), k = i T + j, so that no power is computed L
    times.
    """
    L, n = u.shape[1], len(log_lam)
    m, p = B.shape[1], C.shape[0]
    K = -(-L // chunk)
    coarse = jnp.exp(jnp.arange(K)[:, None] * (chunk * log_lam))
    fine = jnp.exp(jnp.arange(chunk)[:, None] * log_lam)
    left = (coarse[:, None, :] * C).reshape(K * p, n)
    right = (fine[:, None, :] * B.T).reshape(chunk * m, n)
    response = real_of_times(right, two_parts(left)).reshape(K, p, chunk, m)
    response = response.transpose(1, 3, 0, 2).reshape(p, m, K * chunk)[:, :, :L]

    size = fast_size(2 * L - 1)
    spectrum = jnp.fft.rfft(response, size).transpose(2, 1, 0)
    inputs = jnp.fft.rfft(u.transpose(0, 2, 1), size).transpose(2, 0, 1)
    y = jnp.fft.irfft((inputs @ spectrum).transpose(1, 2, 0), size)[:, :, :L].transpose(0, 2, 1)

    # the last state, as for a chunk of L = K T samples that begins with zeros
    shifted = jnp.pad(u, ((0, 0), (K * chunk - L, 0), (0, 0))).reshape(len(u), K, chunk, m)
    to_end = jnp.einsum("bktm,tn->bknm", shifted, fine[::-1])
    x = jnp.einsum("bknm,kn,nm->bn", to_end, coarse[::-1], B)
    if x0 is not None:
        later = jnp.exp(jnp.arange(1, L + 1)[:, None] * log_lam)
        y = y + jnp.real(jnp.einsum("ln,bn,pn->blp", later, x0, C))
        x = x + later[-1] * x0
    return y, x


@checked
def associative(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """All states of a chunk by `jax.lax.associative_scan`, in O(log chunk) passes over them."""
    L = u.shape[1]
    K = -(-L // chunk)
    T = L // K
    x = states_before(log_lam, u, x0)

    @jax.checkpoint
    def one(x, u):
        lam = jnp.broadcast_to(jnp.exp(log_lam), (len(u), 1, len(log_lam)))
        b = jax.lax.complex(*parts_times(B, u)).at[0].add(lam[0] * x)
        _, states = jax.lax.associative_scan(_compose, (lam, b))
        return states[-1], real_of_times(C, two_parts(states))

    x, y = jax.lax.scan(one, x, time_leading(u[:, : K * T], K))
    outputs = [batch_leading(y)]
    if K * T < L:
        x, y = one(x, time_leading(u[:, K * T :], 1)[0])
        outputs.append(batch_leading(y[None]))
    return joined(outputs), x


def _compose(first, second):
    """x -> a x + b, one after the other."""
    return first[0] * second[0], second[0] * first[1] + second[1]


FORMS: dict[str, Callable[..., Result]] = {
    "scan": scan,
    "fused": fused,
    "tiles": tiles,
    "matmul": matmul,
    "fft": fft,
    "associative": associative,
}
