"""The linear recurrence x_k = a_k x_{k-1} + b_k, shared by all layers."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact

from ..derivative import both_ways
from ..masks import within
from ..typing import AnyArray, Count, checked
from .choice import Choice, Size, choose_form, recurrence_override, stored_states
from .compiled import SYSTEMS, adjoint_on_cpu, has_tiles, native, states_on_cpu
from .forms import FORMS
from .pallas import Order, recurrence_on_gpu, with_kernel
from .pieces import in_pieces, piece_axis, state_before
from .plain import is_plain, plain_states, plain_system
from .samples import sample_at, with_sample_read_back
from .whole_batch import whole_batch


@checked
def lti_apply(
    log_lam: Complex[AnyArray, " d_state"],
    B: Complex[AnyArray, "d_state inputs"],
    C: Complex[AnyArray, "outputs d_state"],
    u: Float[AnyArray, "length inputs"],
    x0: Complex[AnyArray, " d_state"] | None = None,
    *,
    reverse: bool = False,
    length: Count | None = None,
) -> tuple[Float[Array, "length outputs"], Complex[Array, " d_state"]]:
    """Outputs Re(C x_k) of x_k = exp(log_lam) x_{k-1} + B u_k from x_0, and the last state.

    `reverse` runs from the last sample to the first, and the last state is then the one at the
    first sample. Of a padded sequence, `length` is the number of samples, 1 or more: inputs after
    them are ignored, outputs there are zero, and the last state is the state after `length`
    samples.

    One sequence per call; `jax.vmap` for a batch. The form of the computation
    (`zoo.recurrence.forms`) is chosen by size and platform when the whole batch is known, by
    `zoo.recurrence.choice`. For the backward pass each stores at most the states between chunks,
    which may be of one sample if there are few states.

    Inputs in bfloat16 let products with B and C be in it too, on CPUs with tiles (AMX); all else is
    in the precision of the system.
    """
    given = jnp.asarray(u)
    dtype = jnp.result_type(log_lam, B, C, u, *([] if x0 is None else [x0]))
    system = [jnp.asarray(x, dtype) for x in (log_lam, B, C)]
    u = jnp.asarray(u, jnp.finfo(dtype).dtype)
    state = [] if x0 is None else [jnp.asarray(x0, dtype)[None]]
    if piece_axis() is not None:
        if reverse or length is not None:
            raise ValueError("`reverse` and `length` must not be given for a sequence in pieces")
        with in_pieces(None):
            _, end = lti_apply(system[0], system[1], system[2], given)
        start = state[0][0] if state else jnp.zeros_like(end)
        decay = jnp.exp(len(u) * system[0])
        state = [state_before(end, start, lambda _, x: decay * x)[None]]
    half = given.dtype == jnp.bfloat16
    apply = partial(_apply, reverse=reverse, override=recurrence_override(), half=half)
    if length is None:
        y, x = apply(*system, u[None], *state)
        return y[0], x[0]
    # The padding must come after the sequence for the outputs, and before it for the last state.
    # Where only one of the two is used, the other is dead code.
    inside = within(length, u.shape[0])[:, None]
    early = jnp.where(inside, u, 0)
    late = jnp.roll(early, u.shape[0] - length, axis=0)
    begin, end = (late, early) if reverse else (early, late)
    y, _ = apply(*system, begin[None], *state)
    _, x = apply(*system, end[None])
    y, x = y[0], x[0]
    if reverse:
        y = jnp.roll(y, length - u.shape[0], axis=0)
    if x0 is not None:
        x = x + jnp.exp(length * system[0]) * state[0][0]
    return jnp.where(inside, y, 0), x


def _lti(log_lam, B, C, u, x0=None, *, reverse: bool, override: Choice | None, half: bool):
    """Outputs and last states of a batch of sequences u [b L m] from x0 [b n]."""
    if is_plain():
        y, x = plain_system(log_lam, B, C, u[:, ::-1] if reverse else u, x0)
        return [y[:, ::-1] if reverse else y, x]
    b, L, m = u.shape
    if b * L == 0:
        last = jnp.zeros((b, len(log_lam)), log_lam.dtype) if x0 is None else x0
        return [jnp.zeros((b, L, len(C)), u.dtype), last]
    form, chunk = override or choose_form(
        Size(b, L, m, *C.shape), fused=native(u.dtype, SYSTEMS), tiles=half and has_tiles()
    )
    if reverse:
        u = u[:, ::-1]
    n = len(log_lam)
    if more := stored_states(n) - n:
        log_lam, B = jnp.pad(log_lam, (0, more)), jnp.pad(B, ((0, more), (0, 0)))
        C = jnp.pad(C, ((0, 0), (0, more)))
        x0 = None if x0 is None else jnp.pad(x0, ((0, 0), (0, more)))
    y, x = FORMS[form](log_lam, B, C, u, x0, chunk)
    return [y[:, ::-1] if reverse else y, x[:, :n]]


_apply = whole_batch(_lti, shared=3)


@checked
def lti_step(
    log_lam: Complex[AnyArray, " d_state"],
    B: Complex[AnyArray, "d_state inputs"],
    C: Complex[AnyArray, "outputs d_state"],
    x: Complex[AnyArray, " d_state"],
    u: Float[AnyArray, " inputs"],
) -> tuple[Complex[Array, " d_state"], Float[Array, " outputs"]]:
    """One step of `lti_apply`: the next state and its output."""
    x = jnp.exp(log_lam) * x + B @ u
    return x, jnp.real(C @ x)


@checked
def linear_recurrence(
    a: Inexact[AnyArray, "length *rest"],
    b: Inexact[AnyArray, "length *rest"],
    x0: Inexact[AnyArray, "*rest"] | None = None,
    *,
    reverse: bool = False,
) -> Inexact[Array, "length *rest"]:
    """All states of the time-varying recurrence x_k = a_k x_{k-1} + b_k, from `x0` or zero.

    `reverse` runs it from the last sample to the first. The backward pass stores `a` and the
    states, which exist anyway, and nothing else of this size.
    """
    dtype = jnp.result_type(a, b) if x0 is None else jnp.result_type(a, b, x0)
    x = jnp.zeros(b.shape[1:], dtype) if x0 is None else x0.astype(dtype)
    if piece_axis() is not None:
        if reverse:
            raise ValueError("`reverse` must not be given for a sequence in pieces")
        with in_pieces(None):
            left = linear_recurrence(a, jnp.zeros_like(b), jnp.ones_like(x))[-1]
            end = linear_recurrence(a, b, jnp.zeros_like(x))[-1]
        x = state_before(end, jnp.asarray(x), lambda left, x: left * x, left)
    return _recurrence(a.astype(dtype)[None], b.astype(dtype)[None], x[None], reverse=reverse)[0][0]


def _states(a, b, x0, *, reverse: bool):
    """States [b L *s] of a batch, in a loop over the second axis: nothing is transposed."""
    if is_plain():
        return [plain_states(a, b, x0, reverse)]
    return [_time_varying(reverse, a, b, x0) if b.size else b]


_recurrence = whole_batch(_states, shared=0)


def _time_varying(reverse, a, b, x0):
    rules = (_time_varying_forward, _time_varying_tangent, _time_varying_backward)
    return both_ways(*(partial(rule, reverse) for rule in rules))(a, b, x0)


def _time_varying_forward(reverse, a, b, x0):
    x = with_kernel(
        lambda a, b, x0: _states_loop(a, b, x0, reverse),
        *(a, b, x0),
        cuda=lambda a, b, x0: _on_gpu(a, b, x0, "after", reverse)[0],
        cpu=(lambda *arrays: states_on_cpu(*arrays, reverse=reverse)[0])
        if native(a.dtype)
        else None,
    )
    return x, (a, x, x0)


def _states_loop(a, b, x0, reverse):
    """States overwrite b one by one, which saves an array."""
    L = a.shape[1]

    def step(i, carry):
        x, states = carry
        k = L - 1 - i if reverse else i
        after = sample_at(a, k, axis=1) * x + sample_at(states, k, axis=1)
        return with_sample_read_back(states, after, k, axis=1)

    return jax.lax.fori_loop(0, L, step, (x0, b))[1]


def _states_before(x, x0, reverse):
    before = [x[:, 1:], x0[:, None]] if reverse else [x0[:, None], x[:, :-1]]
    return jnp.concatenate(before, axis=1)


def _time_varying_tangent(reverse, kept, tangents):
    """The same recurrence, driven by db_k + da_k x_{k-1}."""
    a, x, x0 = kept
    da, db, dx0 = tangents
    return _time_varying(reverse, a, db + da * _states_before(x, x0, reverse), dx0)


def _time_varying_backward(reverse, kept, dx):
    """With g_k the cotangent of x_k: g_k = dx_k + a_{k+1} g_{k+1}, db_k = g_k, da_k = g_k x_{k-1}.

    JAX's cotangents of complex numbers transpose without conjugation.
    """
    a, x, x0 = kept

    def with_products(adjoint, a, x, x0, dx, later):
        g, dx0 = adjoint(a, dx, later)
        return g * _states_before(x, x0, reverse), g, dx0

    def by_loop(a, dx, later):
        return _adjoint_loop(a, dx, later, reverse)

    def by_kernel(a, dx, later):
        return _on_gpu(a, dx, later, "adjoint", not reverse)

    return with_kernel(
        partial(with_products, by_loop),
        *(a, x, x0, dx, jnp.zeros_like(x0)),
        cuda=partial(with_products, by_kernel),
        cpu=partial(adjoint_on_cpu, reverse=reverse) if native(a.dtype) else None,
    )


def _adjoint_loop(a, dx, later, reverse):
    """All g_k, which overwrite dx_k as in `_states_loop`, and a_1 g_1."""
    L = a.shape[1]

    def step(i, carry):
        later, gs = carry
        k = i if reverse else L - 1 - i
        g, gs = with_sample_read_back(gs, sample_at(gs, k, axis=1) + later, k, axis=1)
        return sample_at(a, k, axis=1) * g, gs

    later, gs = jax.lax.fori_loop(0, L, step, (later, dx))
    return gs, later


def _on_gpu(a, b, x, order: Order, reverse: bool):
    """`recurrence_on_gpu` of real or complex states of any shape."""
    a, driven, before = _with_parts(a, 2), _with_parts(b, 2), _with_parts(x, 1)
    states, last = recurrence_on_gpu(a, driven, before, order, reverse)
    return _without_parts(states, b), _without_parts(last, x)


def _with_parts(x, axes: int):
    """[*axes, *s] -> [*axes, P, n], the real and the imaginary part, if there is one."""
    x = x.reshape(*x.shape[:axes], -1)
    parts = [jnp.real(x), jnp.imag(x)] if jnp.iscomplexobj(x) else [x]
    return jnp.stack(parts, axis=axes)


def _without_parts(parts, like):
    """The inverse of `_with_parts`, for the shape of `like`."""
    if jnp.iscomplexobj(like):
        parts = jax.lax.complex(parts[..., 0, :], parts[..., 1, :])
    return parts.reshape(like.shape)
