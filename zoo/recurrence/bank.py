"""Banks of linear recurrences: one system of few states for each channel, run side by side.

    x_k = exp(log_lam) x_{k-1} + B u_k,  y_k = Re(sum over the states of C x_k)

for every channel by itself, as in S4D. No form keeps a state for each sample:
"chunked" computes chunks of samples by matrix products and carries states between them;
"fft" multiplies spectra.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..masks import within
from ..typing import AnyArray, Count, checked
from .choice import GPU, Machine, on_cores, on_cpu, usable_cores
from .parts import fast_size
from .pieces import in_pieces, piece_axis, state_before

BankForm = Literal["chunked", "fft"]

CHUNKS = (16, 32, 64, 128)
"""Chunk sizes to choose from [samples]."""


class BankChoice(NamedTuple):
    """A form and its chunk [samples]; for "fft", the chunk size in which powers are computed."""

    form: BankForm
    chunk: int


@checked
def bank_apply(
    log_lam: Complex[AnyArray, "d_model d_state"],
    B: Complex[AnyArray, "d_model d_state"],
    C: Complex[AnyArray, "d_model d_state"],
    u: Float[AnyArray, "length d_model"],
    x0: Complex[AnyArray, "d_model d_state"] | None = None,
    *,
    length: Count | None = None,
    choice: BankChoice | None = None,
) -> tuple[Float[Array, "length d_model"], Complex[Array, "d_model d_state"]]:
    """Outputs of every channel's system from x_0 (zero if not given), and the last states.

    Of a padded sequence, `length` is the number of samples, 1 or more: the last states are those
    after them, and outputs behind them are zero. The form follows from the sizes and the machine;
    `choice` overrides it.
    """
    given = [] if x0 is None else [x0]
    dtype = jnp.result_type(log_lam, B, C, u, *given)
    log_lam, B, C = (jnp.asarray(x, dtype) for x in (log_lam, B, C))
    u = jnp.asarray(u, jnp.finfo(dtype).dtype)
    start = jnp.zeros_like(log_lam) if x0 is None else jnp.asarray(x0, dtype)
    if piece_axis() is not None:
        if length is not None:
            raise ValueError("`length` must not be given for a sequence in pieces")
        with in_pieces(None):
            _, end = bank_apply(log_lam, B, C, u, choice=choice)
        decay = jnp.exp(len(u) * log_lam)
        start = state_before(end, start, lambda _, x: decay * x)
    if not isinstance(u.shape[0], int):  # exported for any length
        form, chunk = _sample_by_sample, 1
    else:
        name, chunk = choice or choose_bank_form(u.shape[0], log_lam.shape[1])
        form = _FORMS[name]
        if u.shape[0] == 0:
            return u, start
    if length is None:
        return form(log_lam, B, C, u, start, chunk)
    # Padding comes after the sequence for the outputs, and before it for the last states.
    inside = within(length, u.shape[0])[:, None]
    early = jnp.where(inside, u, 0)
    y, _ = form(log_lam, B, C, early, start, chunk)
    late = jnp.roll(early, u.shape[0] - length, axis=0)
    _, x = form(log_lam, B, C, late, jnp.zeros_like(start), chunk)
    return jnp.where(inside, y, 0), x + jnp.exp(length * log_lam) * start


@checked
def bank_step(
    log_lam: Complex[AnyArray, "d_model d_state"],
    B: Complex[AnyArray, "d_model d_state"],
    C: Complex[AnyArray, "d_model d_state"],
    x: Complex[AnyArray, "d_model d_state"],
    u: Float[AnyArray, " d_model"],
) -> tuple[Complex[Array, "d_model d_state"], Float[Array, " d_model"]]:
    """One sample of `bank_apply`: the next states, and the outputs."""
    x = jnp.exp(log_lam) * x + B * u[:, None]
    return x, jnp.real(jnp.sum(C * x, axis=1))


@checked
def choose_bank_form(samples: int, d_state: int) -> BankChoice:
    """The form with the least estimated time per sample and channel, forward and backward. Units of
    work are those of `zoo.recurrence.choice`.
    """
    machine = on_cores(usable_cores()) if on_cpu() else GPU
    choices = [BankChoice("chunked", chunk) for chunk in CHUNKS]
    choices.append(BankChoice("fft", 64))
    return min(choices, key=lambda choice: _cost(choice, samples, d_state, machine))


def _cost(choice: BankChoice, samples: int, n: int, machine: Machine) -> float:
    if choice.form == "fft":
        transforms = 6 * max(1, samples).bit_length()
        return machine.transform * transforms + machine.state * 4 * n / 64
    T = choice.chunk
    flops = 6 * (T + 8 * n)
    return machine.flop * flops + machine.state * 12 * n / T + machine.step * 2 / T


def _sample_by_sample(log_lam, B, C, u, x, chunk: int):
    """A plain loop, for lengths that are unknown at compilation."""
    last, y = jax.lax.scan(lambda x, u_k: bank_step(log_lam, B, C, x, u_k), x, u)
    return y, last


def _chunked(log_lam, B, C, u, x, chunk: int):
    """Whole chunks in a loop, then what remains as one shorter chunk."""
    T = min(chunk, len(u))
    whole = len(u) // T * T
    y, x = _equal_chunks(log_lam, B, C, u[:whole].reshape(-1, T, u.shape[1]), x)
    if whole == len(u):
        return y, x
    rest, x = _equal_chunks(log_lam, B, C, u[whole:][None], x)
    return jnp.concatenate([y, rest]), x


def _equal_chunks(log_lam, B, C, u, x):
    """Outputs [K T h], as rows, and the last states, of K chunks u [K T h]."""
    K, T, channels = u.shape
    powers = _powers(log_lam, T + 1)
    response = jnp.real(jnp.sum(powers[:T] * (B * C), axis=-1))  # [T h]
    lag = jnp.arange(T)[:, None] - jnp.arange(T)
    within_chunk = jnp.where((lag >= 0)[..., None], response[lag], 0)
    y = jnp.einsum("ijh,kjh->kih", within_chunk, u)
    into = _side_by_side(powers[:T][::-1] * B)
    sources = _as_complex(jnp.einsum("jhn,kjh->khn", into, u))

    def step(x, source):
        return powers[T] * x + source, x

    last, before = jax.lax.scan(step, x, sources)
    out = powers[1:] * C
    out = jnp.concatenate([jnp.real(out), -jnp.imag(out)], axis=-1)
    y = y + jnp.einsum("ihn,khn->kih", out, _side_by_side(before))
    return y.reshape(K * T, channels), last


def _by_fft(log_lam, B, C, u, x, chunk: int):
    """The convolution with the impulse response, with the contributions of the first and to the
    last state."""
    L = len(u)
    response = _sums_of_powers(log_lam, B * C, L, chunk)
    size = fast_size(2 * L)
    spectrum = jnp.fft.rfft(response, size, axis=0) * jnp.fft.rfft(u, size, axis=0)
    y = jnp.fft.irfft(spectrum, size, axis=0)[:L]
    y = y + _sums_of_powers(log_lam, jnp.exp(log_lam) * C * x, L, chunk)
    K = -(-L // chunk)
    late = jnp.pad(u, ((K * chunk - L, 0), (0, 0))).reshape(K, chunk, -1)
    into = _side_by_side(_powers(log_lam, chunk)[::-1] * B)
    sources = _as_complex(jnp.einsum("jhn,kjh->khn", into, late))
    last = jnp.sum(_powers(chunk * log_lam, K)[::-1] * sources, axis=0)
    return y.astype(u.dtype), last + jnp.exp(L * log_lam) * x


def _sums_of_powers(log_lam, weights, L: int, chunk: int):
    """Re(sum over the states of weights lam^i) for i < L, [L h], in products of `chunk` powers."""
    K = -(-L // chunk)
    long = weights * _powers(chunk * log_lam, K)
    long = jnp.concatenate([jnp.real(long), -jnp.imag(long)], axis=-1)
    short = _side_by_side(_powers(log_lam, chunk))
    return jnp.einsum("khn,ihn->kih", long, short).reshape(K * chunk, -1)[:L]


def _powers(log_lam, number: int):
    """lam^0 ... [number h n]."""
    return jnp.exp(jnp.arange(number)[:, None, None] * log_lam)


def _side_by_side(x):
    """[... n] complex -> [... 2n]."""
    return jnp.concatenate([jnp.real(x), jnp.imag(x)], axis=-1)


def _as_complex(x):
    """The inverse of `_side_by_side`."""
    return jax.lax.complex(*jnp.split(x, 2, axis=-1))


_FORMS = {"chunked": _chunked, "fft": _by_fft}
