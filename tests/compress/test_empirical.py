"""Gramians from data: right in the limit, better on such data, safe where they fail."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import compress, hankel_singular_values, layer_inputs, plan, shrink
from compress.empirical import data_factor, horizon_factors
from compress.hankel import hankel_matrix
from compress.precision import double_lti
from zoo import LRU, S5
from zoo.model import classifier

H, N, LENGTH = 3, 16, 200


def lru(key):
    return LRU.init(H, N, key=key, r_min=0.3, r_max=0.95)


def s5(key):
    return S5.init(H, N, key=key, step_min=0.01)


LAYERS = pytest.mark.parametrize("make", [lru, s5])


def slow_inputs(key, b=8):
    """Far from white: most of their power is at low frequencies."""
    return jnp.cumsum(jax.random.normal(key, (b, LENGTH, H)), axis=1) / 10


def values(Lp, Lq):
    return np.linalg.svd(hankel_matrix("real", Lp, Lq), compute_uv=False)


@LAYERS
def test_data_factor_is_the_covariance_of_the_states(make, getkey):
    lti, u = double_lti(make(getkey())), slow_inputs(getkey(), b=20)  # more than one slice
    L = data_factor(lti, u)
    x, states = np.zeros((20, N), complex), []
    for k in range(LENGTH):
        x = np.exp(lti.log_lam) * x + np.asarray(u[:, k], float) @ lti.B.T
        states.append(x)
    X = np.concatenate(states)
    scale = np.abs(X).max() ** 2
    np.testing.assert_allclose(L @ L.conj().T, X.T @ X.conj() / len(X), atol=1e-12 * scale)
    np.testing.assert_allclose(L @ L.T, X.T @ X / len(X), atol=1e-12 * scale)


@LAYERS
def test_long_horizons_and_white_data_are_white_noise(make, getkey):
    lti = double_lti(make(getkey()))
    expected = hankel_singular_values(lti, form="real")
    Lp, Lq = horizon_factors(lti, 10**7)
    np.testing.assert_allclose(values(Lp, Lq)[:10], expected[:10], rtol=1e-6)
    Ld = data_factor(lti, jax.random.normal(getkey(), (32, 2000, H)))
    np.testing.assert_allclose(values(Ld, Lq)[:10], expected[:10], rtol=0.2)


def test_a_horizon_of_one_sees_one_sample(getkey):
    lti = double_lti(lru(getkey()))
    Lp, Lq = horizon_factors(lti, 1)
    np.testing.assert_allclose(Lp @ Lp.conj().T, lti.B @ lti.B.conj().T, atol=1e-12)
    gain = np.real(lti.C @ lti.B)
    np.testing.assert_allclose(values(Lp, Lq)[:H], np.linalg.svd(gain)[1], rtol=1e-6)
    with pytest.raises(ValueError, match="horizon=0, allowed: 1 or more"):
        plan(lru(getkey()), horizon=0)


@LAYERS
def test_data_tells_what_to_keep(make, getkey):
    layer = make(getkey())
    seen, new = slow_inputs(getkey()), slow_inputs(getkey())
    y = jax.vmap(layer)(new)

    def error(**weigh):
        small, _ = compress(layer, ranks=4, **weigh)
        return jnp.linalg.norm(jax.vmap(small)(new) - y) / jnp.linalg.norm(y)

    assert error(batch=seen) < 0.5 * min(error(form="complex"), error(form="real"))


@LAYERS
def test_the_plan_says_where_it_comes_from(make, getkey):
    layer = make(getkey())
    (row,) = plan(layer, tolerance=0.02, batch=slow_inputs(getkey())).layers
    assert row.gramians == "data"
    assert row.bound == math.inf
    assert row.floor == 0
    assert row.rank_after < N
    (row,) = plan(layer, ranks=6, form="real").layers
    assert row.gramians == "white noise, real"
    sigma = hankel_singular_values(layer.to_lti(), form="real")
    np.testing.assert_allclose(row.sigma, sigma[::2] + sigma[1::2], rtol=1e-3)
    assert row.floor < row.bound < 2 * row.sigma[5:].sum()
    (row,) = plan(layer, ranks=6, horizon=50).layers
    assert row.gramians == "50 samples"


def test_an_unstable_result_falls_back_and_says_so(getkey, monkeypatch):
    layer = lru(getkey())
    cut = shrink.truncate

    def unstable_with_data(lti, Lp, Lq, rank, *, form):
        reduced = cut(lti, Lp, Lq, rank, form=form)
        Lp_white = shrink.gramian_factors(lti, form)[0]
        white = Lp.shape == Lp_white.shape and np.allclose(Lp, Lp_white)
        return reduced if white else eqx.tree_at(lambda t: t.radius, reduced, 1.0004)

    monkeypatch.setattr(shrink, "truncate", unstable_with_data)
    planned = plan(layer, ranks=5, batch=slow_inputs(getkey()))
    assert "white noise, real: data would be unstable (radius 1.000400)" in str(planned)
    assert planned.layers[0].bound < math.inf
    small, _ = compress(layer, plan=planned)
    expected, _ = compress(layer, ranks=5, form="real")
    u = slow_inputs(getkey())[0]
    np.testing.assert_allclose(small(u), expected(u), atol=1e-5)


@pytest.fixture
def model_and_state(getkey):
    return classifier(
        lru,
        input_kind="real",
        input_size=1,
        classes=4,
        d_model=H,
        blocks=2,
        bidirectional=True,
        key=getkey(),
    )


def test_inputs_of_our_layers_are_recorded(model_and_state, getkey):
    model, state = model_and_state
    x = jax.random.normal(getkey(), (18, LENGTH, 1))
    fed = layer_inputs((model, state), x)
    assert list(fed) == [row.path for row in plan((model, state), ranks={}).layers]
    quiet = eqx.nn.inference_mode(model)
    h = quiet.encoder(x[17])
    u, _ = quiet.blocks[0].norm(h, state)
    np.testing.assert_allclose(fed["[0].blocks[0].ssm.forward"][17], u, atol=1e-5)
    np.testing.assert_allclose(fed["[0].blocks[0].ssm.backward"][17], u[::-1], atol=1e-5)
    h, _ = quiet.blocks[0](h, state)
    u, _ = quiet.blocks[1].norm(h, state)
    np.testing.assert_allclose(fed["[0].blocks[1].ssm.forward"][17], u, atol=1e-5)


def test_a_model_and_its_optimizer_are_compressed_on_data(model_and_state, getkey):
    model, state = model_and_state
    optimizer = optax.adamw(1e-3)
    params = eqx.filter(model, eqx.is_inexact_array)
    grads = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), params)
    _, opt_state = optimizer.update(grads, optimizer.init(params), params)
    x = jax.random.normal(getkey(), (6, LENGTH, 1))
    (small, same), opt_state = compress((model, state), opt_state, tolerance=0.05, batch=x)
    assert same is state
    params = eqx.filter(small, eqx.is_inexact_array)
    assert small.blocks[0].ssm.forward.d_state < N
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), opt_state, params)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(updates))


def test_inputs_may_be_given(getkey):
    layers, u = (lru(getkey()), s5(getkey())), slow_inputs(getkey())
    given = [u, u[:, ::2]]
    by_list, by_name = (
        compress(layers, ranks=5, inputs=inputs)[0]
        for inputs in (given, {"[0]": given[0], "[1]": given[1]})
    )
    assert eqx.tree_equal(by_list, by_name)
    alone, _ = compress(layers[0], ranks=5, batch=u)
    np.testing.assert_allclose(alone(u[0]), by_list[0](u[0]), atol=1e-5)


def test_silence_keeps_one_state(getkey):
    layer = lru(getkey())
    small, _ = compress(layer, ranks=4, batch=jnp.zeros((2, 20, H)))
    assert small.d_state == 1
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(small))


def test_bad_data_is_named(model_and_state, getkey):
    model, _ = model_and_state
    layer, u = lru(getkey()), slow_inputs(getkey())
    for arguments, message in [
        ({"batch": u, "horizon": 5}, "batch and horizon are given, allowed: one of"),
        ({"inputs": []}, "inputs has 0 entries, but there are 1 layers"),
        ({"inputs": {"ssm": u}}, r"inputs are for \['ssm'\], the layers are"),
        ({"inputs": [u[0]]}, r"inputs for the layer have shape \(200, 3\), allowed: \(sequences,"),
        ({"inputs": [u.at[0, 0, 0].set(jnp.nan)]}, "inputs for the layer hold NaN or infinity"),
        ({"batch": u[:0]}, "batch: allowed are arrays with the same number of sequences"),
    ]:
        with pytest.raises(ValueError, match=message):
            plan(layer, ranks=4, **arguments)
    with pytest.raises(ValueError, match="pass model="):
        plan(model, batch=u[..., :1])
    with pytest.raises(ValueError, match="a dict cannot be run, pass inputs="):
        plan({"a": layer}, batch=u)
    planned = plan(layer, ranks=4, batch=u)
    other = eqx.tree_at(lambda m: m.C_re, layer, layer.C_re + 1)
    with pytest.raises(ValueError, match="plan was made for other parameters of the layer"):
        compress(other, plan=planned)
    with pytest.raises(ValueError, match="plan and batch are given"):
        compress(layer, plan=planned, batch=u)
