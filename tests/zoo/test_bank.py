"""Banks of recurrences, one system a channel: every form against one sample after the other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import S4D, bank_apply, bank_step
from zoo.layers.s4d import STARTS, check_start
from zoo.recurrence.bank import BankChoice, choose_bank_form

H, N = 3, 4
FORMS = [BankChoice("chunked", 4), BankChoice("chunked", 64), BankChoice("fft", 4)]


def bank(key, dtype=jnp.complex64):
    parts = jax.random.normal(key, (8, H, N))
    log_lam = -jnp.exp(parts[0] - 2) + 1j * parts[1]
    B, C, x0 = (parts[k] + 1j * parts[k + 1] for k in (2, 4, 6))
    return tuple(x.astype(dtype) for x in (log_lam, B, C, x0))


def one_by_one(log_lam, B, C, u, x):
    outputs = []
    for u_k in u:
        x, y_k = bank_step(log_lam, B, C, x, u_k)
        outputs.append(y_k)
    return jnp.stack(outputs), x


@pytest.mark.parametrize("choice", FORMS, ids=str)
@pytest.mark.parametrize("length", [None, 9])
def test_every_form_is_one_sample_after_the_other(choice, length, getkey):
    *system, x0 = bank(getkey())
    u = jax.random.normal(getkey(), (13, H))
    own = len(u) if length is None else length
    expected, last = one_by_one(*system, u[:own], x0)
    y, x = bank_apply(*system, u, x0, length=length, choice=choice)
    np.testing.assert_allclose(y[:own], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x, last, rtol=1e-4, atol=1e-4)
    assert not np.any(y[own:])


@pytest.mark.parametrize("choice", FORMS[::2], ids=str)
def test_gradients_of_every_form_are_those_of_the_loop(choice, x64, getkey):
    *system, x0 = bank(getkey(), jnp.complex128)
    u = jax.random.normal(getkey(), (10, H))
    weights = jax.random.normal(getkey(), (10, H))

    def loss(apply):
        def of(system, u, x0):
            y, x = apply(*system, u, x0)
            return jnp.sum(weights * y) + jnp.sum(jnp.abs(x) ** 2)

        return jax.grad(of, (0, 1, 2))(tuple(system), u, x0)

    ours = loss(lambda *given: bank_apply(*given, choice=choice))
    for a, b in zip(*map(jax.tree.leaves, (ours, loss(one_by_one))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_forms_go_both_ways_of_differentiation(getkey):
    *system, x0 = bank(getkey())
    u = jax.random.normal(getkey(), (10, H))
    for choice in FORMS:
        _, change = jax.jvp(
            lambda u, c=choice: bank_apply(*system, u, x0, choice=c)[0], (u,), (jnp.ones_like(u),)
        )
        plain = bank_apply(*system, jnp.ones_like(u), choice=choice)[0]
        np.testing.assert_allclose(change, plain, rtol=1e-4, atol=1e-4)


def test_long_memories_go_to_fourier_transforms():
    assert choose_bank_form(1024, 8).form == "chunked"
    assert choose_bank_form(1024, 4000).form == "fft"


@pytest.mark.parametrize("start", STARTS)
def test_starts_are_those_of_the_paper(start, getkey):
    layer = S4D.init(H, N, key=getkey(), start=start)
    expected = {
        "lin": -0.5 + 1j * np.pi * np.arange(N),
        "inv": -0.5 + 1j * 2 * N / np.pi * (2 * N / (2 * np.arange(N) + 1) - 1),
    }
    np.testing.assert_allclose(jnp.real(layer.Lambda), -0.5, rtol=1e-5)
    if start in expected:
        np.testing.assert_allclose(layer.Lambda[0], expected[start], rtol=1e-5, atol=1e-5)
    assert np.all(layer.to_lti().B.shape == (H, N, 1))
    with pytest.raises(ValueError, match="`start` must be one of lin, inv, legs, got 'hippo'"):
        check_start("hippo")


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_channels_are_systems_of_their_own(discretization, getkey):
    layer = S4D.init(H, N, key=getkey(), discretization=discretization, step_max=0.5)
    u = jax.random.normal(getkey(), (20, H))
    moved = layer(u.at[:, 1].add(1.0)) - layer(u)
    assert not np.any(moved[:, [0, 2]])
    assert np.any(moved[:, 1])
    again = layer.from_lti(layer.to_lti())
    for ours, theirs in zip(*map(jax.tree.leaves, (again, layer)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-4)
    one = jax.tree.map(lambda x: x[:1], layer.to_lti())
    with pytest.raises(ValueError, match="`lti` must have arrays of shapes"):
        layer.from_lti(one)


def test_half_precision(getkey):
    layer = S4D.init(H, N, key=getkey())
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), layer)
    u = jax.random.normal(getkey(), (20, H)).astype(jnp.bfloat16)
    y = eqx.filter_jit(half)(u)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        y.astype(jnp.float32), layer(u.astype(jnp.float32)), rtol=0.1, atol=0.2
    )
