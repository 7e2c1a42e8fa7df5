"""Products of a system in half precision by the tiles of a CPU (AMX)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LRU, classifier, in_precision
from zoo.recurrence import choice, linear
from zoo.recurrence.choice import Size, choose_form, recurrence_form
from zoo.recurrence.compiled import has_tiles, lti_gradients, lti_outputs
from zoo.recurrence.linear import lti_apply

jax.devices()  # kernels are registered once there are devices
tiled = pytest.mark.skipif(not has_tiles(), reason="this CPU has no tiles, or there is no kernel")


def rounded(x):
    return np.asarray(jnp.asarray(x, jnp.float32).astype(jnp.bfloat16), np.float64)


def complex_of(x, axis=0):
    return np.take(x, 0, axis) + 1j * np.take(x, 1, axis)


def parts_of(x, axis=0):
    return np.stack([x.real, x.imag], axis)


def definition(lam, B, C, u, x0, dy, dlast):
    """All results in double precision, of factors that are rounded where products begin."""
    lam = complex_of(np.asarray(lam, np.float64))
    B, C = complex_of(rounded(B)), complex_of(rounded(C))
    u, dy = rounded(u), rounded(dy)
    x = complex_of(np.asarray(x0, np.float64), 1)
    before, after = [], []
    for k in range(u.shape[1]):
        before.append(x)
        x = lam * x + u[:, k] @ B.T
        after.append(x)
    leaving = complex_of(rounded(parts_of(np.stack(after, 1))))
    later = complex_of(np.asarray(dlast, np.float64), 1)
    dlam, cotangents = np.zeros_like(lam), []
    for k in reversed(range(u.shape[1])):
        g = later + dy[:, k] @ C.conj()
        dlam += np.sum(g * before[k].conj(), 0)
        cotangents.append(g)
        later = lam.conj() * g
    g = complex_of(rounded(parts_of(np.stack(cotangents[::-1], 1))))
    dB, dC = np.einsum("bkn,bkm->nm", g, u), np.einsum("bkp,bkn->pn", dy, leaving.conj())
    du = np.real(g @ B.conj())
    return (
        np.real(leaving @ C.T),
        parts_of(x, 1),
        *(parts_of(each) for each in (dlam, dB, dC)),
        du,
        parts_of(later, 1),
    )


@tiled
@pytest.mark.parametrize(("m", "p"), [(1, 33), (40, 3), (32, 64)])
@pytest.mark.parametrize(
    ("batch", "L", "n", "chunk"),
    [(1, 1, 1, 1), (3, 21, 16, 8), (5, 139, 35, 32), (1, 300, 70, 64)],
)
def test_a_system_and_its_gradients_are_those_of_rounded_factors(m, p, batch, L, n, chunk):
    rng = np.random.default_rng(m + p + n)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    lam = jnp.asarray(rng.uniform(-0.6, 0.6, (2, n)), jnp.float32)
    system = lam, draw(2, n, m), draw(2, p, n), draw(batch, L, m)
    x0, dy, dlast = draw(batch, 2, n), draw(batch, L, p), draw(batch, 2, n)
    y, last, before = lti_outputs(*system, x0, chunk=chunk, tiles=True)
    gradients = lti_gradients(*system, before, dy, dlast, chunk=chunk, tiles=True)
    expected = definition(*system, x0, dy, dlast)
    for mine, other in zip((y, last, *gradients), expected, strict=True):
        # a last digit in single precision may round the other way
        assert np.linalg.norm(mine - other) <= 3e-4 * np.linalg.norm(other)


@tiled
def test_numbers_that_are_none_stay_so():
    system = jnp.full((2, 3), 0.5), jnp.ones((2, 3, 32)), jnp.ones((2, 32, 3))
    u = jnp.zeros((2, 40, 32)).at[0, 4, 3].set(jnp.nan)
    y, *_ = lti_outputs(*system, u, jnp.zeros((2, 2, 3)), chunk=8, tiles=True)
    assert np.isnan(y[0, 4:]).all()
    assert np.isfinite(y[0, :4]).all()
    assert np.isfinite(y[1]).all()


@pytest.fixture
def chosen(monkeypatch):
    """The forms that were chosen, as on a CPU with tiles. Programs that exist are not traced again,
    so each test has a length of its own.
    """
    forms = []

    def spy(*arguments, **options):
        choice = choose_form(*arguments, **options)
        forms.append(choice.form)
        return choice

    monkeypatch.setattr(linear, "choose_form", spy)
    monkeypatch.setattr(linear, "has_tiles", lambda: True)
    return forms


def test_inputs_in_half_precision_take_tiles(chosen):
    layer = LRU.init(32, 8, key=jax.random.key(0))
    u = jax.random.normal(jax.random.key(1), (51, 32), jnp.bfloat16)
    half = layer(u)
    exact = layer(u.astype(jnp.float32))
    assert [form == "tiles" for form in chosen] == [True, False]
    assert np.linalg.norm(half - exact) < 0.01 * np.linalg.norm(exact)


@pytest.mark.parametrize(("norm_first", "L"), [(True, 52), (False, 53)])
def test_systems_alone_may_be_in_half_precision(chosen, norm_first, L):
    model, state = classifier(
        lambda key: LRU.init(32, 8, key=key),
        input_kind="real",
        input_size=2,
        classes=3,
        d_model=32,
        blocks=1,
        norm="layer",
        norm_first=norm_first,
        key=jax.random.key(0),
    )
    x = jax.random.normal(jax.random.key(1), (L, 2))
    half = in_precision(model, "bf16-systems")
    for mine, old in zip(jax.tree.leaves(half), jax.tree.leaves(model), strict=True):
        assert mine is old
    stream = jax.eval_shape(lambda x: half.blocks[0](x, state)[0], jnp.ones((L + 10, 32)))
    assert stream.dtype == jnp.float32
    chosen.clear()
    logits = half(x, state)[0]
    assert set(chosen) == {"tiles"}
    chosen.clear()
    exact = model(x, state)[0]
    assert chosen
    assert "tiles" not in chosen
    np.testing.assert_allclose(logits, exact, atol=0.02 * np.abs(exact).max())


def test_narrow_systems_and_other_devices_have_none():
    wide, narrow = Size(4, 100, 32, 32, 8), Size(4, 100, 32, 31, 8)
    assert choose_form(wide, "cpu", fused=True, tiles=True) == choice.TILED
    assert choose_form(narrow, "cpu", fused=True, tiles=True).form != "tiles"
    assert choose_form(wide, "gpu", fused=True, tiles=True).form != "tiles"


def test_without_tiles_the_form_is_that_of_single_precision(monkeypatch):
    monkeypatch.setattr("zoo.recurrence.forms.has_tiles", lambda: False)
    layer = LRU.init(32, 8, key=jax.random.key(0)).to_lti()
    u = jax.random.normal(jax.random.key(1), (50, 32))
    outputs = {}
    for form in ("fused", "tiles"):
        with recurrence_form(form, 16):
            outputs[form] = lti_apply(layer.log_lam, layer.B, layer.C, u)[0]
    np.testing.assert_array_equal(outputs["fused"], outputs["tiles"])
