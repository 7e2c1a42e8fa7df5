"""Forms of one linear system over a batch of sequences: the same numbers, at different costs.

Each takes the system, the inputs u [b L m], the first states x0 [b n] (None for zero) and a chunk
size, and returns the outputs Re(C x_k) [b L p] and the last states [b n] of
x_k = lam x_{k-1} + B u_k, lam = exp(log_lam). From forward to backward pass none keeps more than
the states between chunks: with chunks of one sample those are all states, once. Powers are
exp(k log_lam), which keeps its digits in long chunks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..typing import checked
from .compiled import SYSTEMS, adjoint_on_cpu, lti_gradients, lti_outputs, native, states_on_cpu
from .pallas import Kept, recurrence_on_gpu, with_kernel
from .samples import (
    batch_leading,
    joined,
    sample_at,
    time_leading,
    with_sample,
    with_sample_read_back,
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
    """Sample after sample; a chunk's states are made, used and forgotten, and made again backward.

    What is kept are the states between chunks. Chunks are of equal length, and near `chunk`, as far
    as L allows; the samples that are left over make a last short one.
    """
    b, L, m = u.shape
    K = -(-L // chunk)
    T = L // K
    whole = K * T
    x = _states_before(log_lam, u, x0)
    outputs = []
    for piece, chunks in ((u[:, :whole], K), (u[:, whole:], 1)):
        if piece.size:
            y, x = _scan_chunks(log_lam, B, C, piece.reshape(b, chunks, -1, m), x)
            outputs.append(y.reshape(b, piece.shape[1], -1))
    return joined(outputs), x


@jax.custom_vjp
def _scan_chunks(
    log_lam: LogLam,
    B: InputMatrix,
    C: OutputMatrix,
    u: Float[Array, "batch chunks chunk inputs"],
    x0: States,
) -> tuple[Float[Array, "batch chunks chunk outputs"], States]:
    return _scan_forward(log_lam, B, C, u, x0)[0]


def _scan_forward(log_lam, B, C, u, x0):
    """Only what has n channels, and only a chunk of it, is turned to have time leading."""
    lam = jnp.exp(log_lam)
    b, K, T, _ = u.shape

    def one(k, carry):
        x, y, before = carry
        sources = _turned(_parts_times(B, sample_at(u, k, axis=1)))
        after, states = _states(lam, sources, x)
        y = with_sample(y, _real_of_times(C, _turned(states)), k, axis=1)
        return after, y, with_sample(before, x, k)

    y = jnp.zeros((b, K, T, len(C)), u.dtype)
    before = jnp.zeros((K, *x0.shape), x0.dtype)
    last, y, before = jax.lax.fori_loop(0, K, one, (x0, y, before))
    return (y, last), (log_lam, B, C, u, before)


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
        sources = _turned(_parts_times(B, u))
        sources = tuple(jnp.concatenate(pair) for pair in zip(first, sources, strict=True))
        _, states = _states(lam, sources, jnp.zeros_like(x))
        previous, current = [s[:-1] for s in states], _turned([s[1:] for s in states])
        (later, product), gs = jax.lax.scan(
            adjoint,
            (later, product),
            (_turned(_parts_times(C.T, dy)), previous),
            reverse=True,
        )
        gs = _turned(gs)
        dB = [total + _rows(part).T @ _rows(u) for total, part in zip(dB, gs, strict=True)]
        dC = [total + _rows(dy).T @ _rows(part) for total, part in zip(dC, current, strict=True)]
        return later, product, dB, dC, with_sample(du, _real_of_times(B.T, gs), k, axis=1)

    nothing = [jnp.zeros(B.shape, all_u.dtype)] * 2, [jnp.zeros(C.shape, all_u.dtype)] * 2
    start = dx, jnp.zeros_like(dx), *nothing, jnp.zeros_like(all_u)
    dx0, product, dB, dC, du = jax.lax.fori_loop(0, K, one, start)
    dlog_lam = lam * jnp.sum(product, axis=0)
    return dlog_lam, jax.lax.complex(*dB), jax.lax.complex(*dC), du, dx0


_scan_chunks.defvjp(_scan_forward, _scan_backward)


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
    """As `scan`, in one kernel on each core of a CPU: states never leave its first cache.

    There are kernels for single precision, where the package was installed with a compiler; `scan`
    takes their place.
    """
    x = _states_before(log_lam, u, x0)
    if not native(u.dtype, SYSTEMS):
        return scan(log_lam, B, C, u, x, chunk)
    parts = (jnp.stack(_parts(each)) for each in (jnp.exp(log_lam), B, C))
    y, last = _fused(chunk, *parts, u, _real_states(x))
    return y, jax.lax.complex(last[:, 0], last[:, 1])


@checked
def matmul(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """All chunks at once, as matrix products with T x T blocks of impulse responses.

    With x the state before a chunk u_1..u_T, that after it is lam^T x + sum_s lam^(T-s) B u_s, and
    the outputs are y_t = Re(C lam^t x) + sum_{s <= t} Re(C lam^(t-s) B) u_s. Only the first is
    sequential, from chunk to chunk. Of chunks of one sample the outputs are Re(C x_k), x_k the
    states after them, with no response within.
    """
    b, L, _ = u.shape
    whole = L - L % chunk
    x = _real_states(_states_before(log_lam, u, x0))
    outputs = []
    for piece, T in ((u[:, :whole], chunk), (u[:, whole:], L - whole)):
        if piece.size:
            chunks = piece.reshape(b, piece.shape[1] // T, -1)
            y, x = _matmul_chunks(log_lam, B, C, chunks, x, T)
            outputs.append(y.reshape(b, piece.shape[1], -1))
    return joined(outputs), jax.lax.complex(x[:, 0], x[:, 1])


def _matmul_chunks(log_lam, B, C, u, x, T):
    """Outputs [b K T*p] and last state, as `_carry` has them, of chunks [b K T*m]."""
    n, m = B.shape
    p = C.shape[0]
    b, K, _ = u.shape
    u = _rows(u)  # so that XLA finds one product of matrices in the backward pass too
    powers = jnp.exp(jnp.arange(T + 1)[:, None] * log_lam)
    into = (powers[:T][::-1, :, None] * B).transpose(1, 0, 2).reshape(n, T * m)
    sources = (u @ jnp.concatenate(_parts(into)).T).reshape(b, K, 2, n)
    if T == 1:
        after, x = _carry("after", *_parts(powers[T]), sources, x)
        y = after.reshape(b * K, 2 * n) @ _real_output(C).T
        return y.reshape(b, K, p), x

    before, x = _carry("before", *_parts(powers[T]), sources, x)
    out = powers[:, None, :] * C
    response = _real_of_times(B.T, _parts(out[:T].reshape(T * p, n))).reshape(T, p, m)
    lag = jnp.arange(T)[:, None] - jnp.arange(T)
    within = jnp.where((lag >= 0)[:, :, None, None], response[jnp.maximum(lag, 0)], 0)
    within = within.transpose(0, 2, 1, 3).reshape(T * p, T * m)
    onto = _real_output(out[1:].reshape(T * p, n))
    y = u @ within.T + before.reshape(b * K, 2 * n) @ onto.T
    return y.reshape(b, K, T * p), x


_rule_by_order: Any = partial(jax.custom_vjp, nondiff_argnums=(0,))


@_rule_by_order
def _carry(
    order: Kept,
    real: Float[Array, " d_state"],
    imaginary: Float[Array, " d_state"],
    sources: Float[Array, "batch chunks 2 d_state"],
    x: Float[Array, "batch 2 d_state"],
) -> Any:
    """The states "before" or "after" each chunk, and after the last, of x <- a x + source.

    Results are [b K 2 n] and [b 2 n]; a is `real` + i `imaginary`. States are real parts beside
    imaginary parts, which is what matrix products make and take: a change from or to complex
    numbers would pass over all of them.
    """
    return _carry_forward(order, real, imaginary, sources, x)[0]


def _carry_forward(order, real, imaginary, sources, x0):
    states, x = with_kernel(
        partial(_carry_loop, order),
        *(jnp.stack([real, imaginary]), sources, x0),
        cuda=lambda a, sources, x: tuple(
            recurrence_on_gpu(a[None, None], sources, x, order, False)
        ),
        cpu=partial(_carry_native, order) if native(sources.dtype) else None,
    )
    return (states, x), (real, imaginary, states, x0)


def _carry_native(order: Kept, a, sources, x):
    return states_on_cpu(a[None, None], sources, x, order, split=True)


def _carry_loop(order: Kept, a, sources, x, reverse: bool = False):
    """States after chunks take the place of the sources, which spares filling a place of their own.

    Those before chunks have to be written before the source is read, so they need one.
    """
    K = sources.shape[1]
    in_place = order == "after"

    def step(i, carry):
        x, states = carry
        k = K - 1 - i if reverse else i
        after = _times(a, x) + sample_at(states if in_place else sources, k, axis=1)
        return after, with_sample(states, after if in_place else x, k, axis=1)

    start = x, sources if in_place else jnp.zeros_like(sources)
    x, states = jax.lax.fori_loop(0, K, step, start)
    return states, x


def _carry_backward(order, kept, cotangents):
    """The adjoint is the same recurrence, from the last chunk on, with the conjugate of a."""
    real, imaginary, states, x0 = kept
    dsources, dx, dreal, dimaginary = with_kernel(
        partial(_adjoint_loop, order),
        *(jnp.stack([real, imaginary]), states, x0, *cotangents),
        cuda=partial(_adjoint_on_gpu, order),
        cpu=partial(_adjoint_native, order) if native(states.dtype) else None,
    )
    return dreal, dimaginary, dsources, dx


def _adjoint_native(order: Kept, a, states, x0, dstates, dx):
    da, dsources, dx = adjoint_on_cpu(a[None, None], states, x0, dstates, dx, order, split=True)
    return dsources, dx, *jnp.sum(da, axis=(0, 1))


def _adjoint_on_gpu(order: Kept, a, states, x0, dstates, dx):
    before, adjoint = states, order
    if order == "after":
        before, adjoint = jnp.concatenate([x0[:, None], states[:, :-1]], axis=1), "adjoint"
    g, dx = recurrence_on_gpu(_conjugate(a)[None, None], dstates, dx, adjoint, True)
    return g, dx, *_sum_of_products(g, before)


def _adjoint_loop(order: Kept, a, states, x0, dstates, dx):
    """Of states after each chunk there are many: the sum grows along, with no pass more over them.

    No copy is made of them that begins with x0; g takes the place of `dstates`.
    """
    a = _conjugate(a)
    if order == "before":
        g, dx = _carry_loop(order, a, dstates, dx, reverse=True)
        return g, dx, *_sum_of_products(g, states)
    K = states.shape[1]

    def step(i, carry):
        x, straight, crossed, gs = carry  # where g is not yet, its source is
        k = K - 1 - i
        before = jnp.where(k == 0, x0, sample_at(states, jnp.maximum(k - 1, 0), axis=1))
        g, gs = with_sample_read_back(gs, sample_at(gs, k, axis=1) + x, k, axis=1)
        straight, crossed = straight + g * before, crossed + g[:, ::-1] * before
        return _times(a, g), straight, crossed, gs

    nothing = jnp.zeros_like(dx)
    x, straight, crossed, gs = jax.lax.fori_loop(0, K, step, (dx, nothing, nothing, dstates))
    return gs, x, *_by_part(jnp.sum(straight, axis=0), jnp.sum(crossed, axis=0))


def _sum_of_products(g, x):
    """Real and imaginary part of the sum over g times the conjugate of x, both [b K 2 n]."""
    return _by_part(jnp.sum(g * x, axis=(0, 1)), jnp.sum(g[:, :, ::-1] * x, axis=(0, 1)))


def _by_part(straight, crossed):
    return jnp.sum(straight, axis=0), crossed[0] - crossed[1]


def _conjugate(a):
    return jnp.stack([a[0], -a[1]])


def _times(a, x):
    """a x of complex numbers by parts, [2 n] and [b 2 n]."""
    return a[0] * x + jnp.stack([-a[1], a[1]]) * x[:, ::-1]


_carry.defvjp(_carry_forward, _carry_backward)


@_rule_by_order
def _fused(
    chunk: int,
    lam: Float[Array, "2 d_state"],
    B: Float[Array, "2 d_state inputs"],
    C: Float[Array, "2 outputs d_state"],
    u: Float[Array, "batch length inputs"],
    x0: Float[Array, "batch 2 d_state"],
) -> Any:
    """Outputs and last states, by real and imaginary parts."""
    return _fused_forward(chunk, lam, B, C, u, x0)[0]


def _fused_forward(chunk, *arguments):
    def without_states(*arguments):
        b, L, _ = arguments[3].shape
        before = jnp.zeros((b, -(-L // chunk), *arguments[0].shape), arguments[3].dtype)
        return *_unfused(chunk, *arguments), before

    y, last, before = with_kernel(without_states, *arguments, cpu=partial(lti_outputs, chunk=chunk))
    return (y, last), (*arguments, before)


def _fused_backward(chunk, kept, cotangents):
    def by_scan(*arrays):
        return jax.vjp(partial(_unfused, chunk), *arrays[:5])[1](arrays[6:])

    def by_kernel(lam, B, C, u, x0, before, dy, dlast):
        return lti_gradients(lam, B, C, u, before, dy, dlast, chunk=chunk)

    return with_kernel(by_scan, *kept, *cotangents, cpu=by_kernel)


def _unfused(chunk, lam, B, C, u, x0):
    lam, B, C = (jax.lax.complex(*each) for each in (lam, B, C))
    y, x = scan(jnp.log(lam), B, C, u, jax.lax.complex(x0[:, 0], x0[:, 1]), chunk)
    return y, _real_states(x)


_fused.defvjp(_fused_forward, _fused_backward)


@checked
def fft(
    log_lam: LogLam, B: InputMatrix, C: OutputMatrix, u: Inputs, x0: States | None, chunk: int
) -> Result:
    """Convolution with the impulse response Re(C lam^k B), in the frequency domain.

    The response is made as (C lam^(iT)) (lam^j B), k = i T + j, so that no power is made L times.
    """
    L, n = u.shape[1], len(log_lam)
    m, p = B.shape[1], C.shape[0]
    K = -(-L // chunk)
    coarse = jnp.exp(jnp.arange(K)[:, None] * (chunk * log_lam))
    fine = jnp.exp(jnp.arange(chunk)[:, None] * log_lam)
    left = (coarse[:, None, :] * C).reshape(K * p, n)
    right = (fine[:, None, :] * B.T).reshape(chunk * m, n)
    response = _real_of_times(right, _parts(left)).reshape(K, p, chunk, m)
    response = response.transpose(1, 3, 0, 2).reshape(p, m, K * chunk)[:, :, :L]

    size = _fast_size(2 * L - 1)
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
    x = _states_before(log_lam, u, x0)

    @jax.checkpoint
    def one(x, u):
        lam = jnp.broadcast_to(jnp.exp(log_lam), (len(u), 1, len(log_lam)))
        b = jax.lax.complex(*_parts_times(B, u)).at[0].add(lam[0] * x)
        _, states = jax.lax.associative_scan(_compose, (lam, b))
        return states[-1], _real_of_times(C, _parts(states))

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
    "matmul": matmul,
    "fft": fft,
    "associative": associative,
}


def _states_before(log_lam, u, x0):
    return jnp.zeros((len(u), len(log_lam)), log_lam.dtype) if x0 is None else x0


def _real_states(x):
    """[b n] -> [b 2 n], real and imaginary parts."""
    return jnp.stack(_parts(x), axis=1)


def _rows(x):
    return x.reshape(-1, x.shape[-1])


def _parts(x):
    return jnp.real(x), jnp.imag(x)


def _parts_times(B, u):
    """Real and imaginary parts of rows B u_k, u real."""
    return u @ jnp.real(B).T, u @ jnp.imag(B).T


def _real_output(C):
    """[p 2n], for the product with parts of states side by side to be Re(C x)."""
    return jnp.concatenate([jnp.real(C), -jnp.imag(C)], axis=1)


def _real_of_times(C, x):
    """Rows Re(C x_k), from the parts of x."""
    return x[0] @ jnp.real(C).T - x[1] @ jnp.imag(C).T


def _fast_size(least: int) -> int:
    """The first even number from `least` on that is 2^i 3^j 5^k, which FFTs are fast for."""
    size = max(2, least + least % 2)
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2
