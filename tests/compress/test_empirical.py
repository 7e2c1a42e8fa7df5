"""Gramians from data: right in the limit, better on such data, safe where they fail."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import (
    Data,
    Horizon,
    Ranks,
    WhiteNoise,
    compress,
    hankel_singular_values,
    layer_inputs,
    output_gradients,
    plan,
)
from compress.linear import data_gramians as empirical
from compress.linear import spectrum
from compress.linear.balance import gramian_factors
from compress.linear.data_gramians import data_factor, gradient_factor, horizon_factors
from compress.linear.hankel import hankel_matrix
from compress.linear.refit import refit
from compress.linear.system import double_lti
from zoo import LRU, S5, DiagonalLTI, Mamba
from zoo.network.classifier import classifier

H, N, LENGTH = 3, 16, 200


def lru(key):
    return LRU.init(H, N, key=key, r_min=0.3, r_max=0.95)


def s5(key):
    return S5.init(H, N, key=key, step_min=0.01)


LAYERS = pytest.mark.parametrize("make", [lru, s5])


def slow_inputs(key, b=8):
    """Far from white: most of their power is at low frequencies."""
    return jnp.cumsum(jax.random.normal(key, (b, LENGTH, H)), axis=1) / 10


@eqx.filter_jit
def run(layer, u):
    return jax.vmap(layer)(u)


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
    with pytest.raises(ValueError, match="`horizon` must be 1 or more samples, got 0"):
        Horizon(0)


@LAYERS
def test_data_tells_what_to_keep(make, getkey):
    layer = make(getkey())
    seen, new = slow_inputs(getkey()), slow_inputs(getkey())
    y = run(layer, new)

    def error(method):
        small, _ = compress(layer, policy=Ranks(4), method=method)
        return jnp.linalg.norm(run(small, new) - y) / jnp.linalg.norm(y)

    assert error(Data(seen)) < 0.5 * min(error(WhiteNoise("complex")), error(WhiteNoise()))


@LAYERS
def test_the_plan_says_where_it_comes_from(make, getkey):
    layer = make(getkey())
    (row,) = plan(layer, tolerance=0.02, batch=slow_inputs(getkey())).layers
    assert row.gramians == "data and gradients"
    assert row.bound == math.inf
    assert row.floor == 0
    assert row.rank_after < N
    (row,) = plan(layer, policy=Ranks(6), method=WhiteNoise("real")).layers
    assert row.gramians == "white noise, real"
    sigma = hankel_singular_values(layer.to_lti(), form="real")
    np.testing.assert_allclose(row.sigma, sigma[::2] + sigma[1::2], rtol=1e-3)
    assert row.floor < row.bound < 2 * row.sigma[5:].sum()
    (row,) = plan(layer, policy=Ranks(6), method=Horizon(50)).layers
    assert row.gramians == "50 samples"


def test_an_unstable_result_falls_back_and_says_so(getkey, monkeypatch):
    layer = lru(getkey())
    cut = spectrum.truncate

    def unstable_with_data(lti, Lp, Lq, rank, *, form, **more):
        reduced = cut(lti, Lp, Lq, rank, form=form, **more)
        Lp_white = gramian_factors(lti, form)[0]
        white = Lp.shape == Lp_white.shape and np.allclose(Lp, Lp_white)
        return reduced if white else eqx.tree_at(lambda t: t.radius, reduced, 1.0004)

    monkeypatch.setattr(spectrum, "truncate", unstable_with_data)
    on_data = Data(slow_inputs(getkey()), gradients=False)
    planned = plan(layer, policy=Ranks(5), method=on_data)
    assert "white noise, real: data would be unstable (radius 1.000400)" in str(planned)
    assert planned.layers[0].bound < math.inf
    small, _ = compress(layer, plan=planned)
    expected, _ = compress(layer, policy=Ranks(5))
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
    assert list(fed) == [row.path for row in plan((model, state), policy=Ranks({})).layers]
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
        compress(layers, policy=Ranks(5), method=Data(inputs=inputs))[0]
        for inputs in (given, {"[0]": given[0], "[1]": given[1]})
    )
    assert eqx.tree_equal(by_list, by_name)
    alone, _ = compress(layers[0], policy=Ranks(5), method=Data(u, gradients=False))
    np.testing.assert_allclose(alone(u[0]), by_list[0](u[0]), atol=1e-5)


@pytest.mark.parametrize("silent", ["inputs", "gradients"])
def test_silence_falls_back_and_says_so(silent, getkey):
    layer, u = lru(getkey()), slow_inputs(getkey())
    data = Data(**({"inputs": [u], "gradients": [u]} | {silent: [0 * u]}))
    (row,) = plan(layer, tolerance=0.1, method=data).layers
    (white,) = plan(layer, tolerance=0.1).layers
    assert row.gramians == "white noise, real: by data and gradients all sigma are zero"
    assert row.rank_after == white.rank_after > 1
    assert row.bound == white.bound < math.inf
    small, _ = compress(layer, policy=Ranks(4), method=data)
    assert eqx.tree_equal(small, compress(layer, policy=Ranks(4))[0])


def test_bad_data_is_named(model_and_state, getkey):
    model, _ = model_and_state
    layer, u = lru(getkey()), slow_inputs(getkey())
    for arguments, message in [
        ({}, "Data must have one of `batch` and `inputs`, got neither"),
        ({"batch": u, "inputs": [u]}, "Data must have one of `batch` and `inputs`, got both"),
        ({"inputs": []}, "`inputs` must have 1 entries, one for each layer, got 0"),
        ({"inputs": {"ssm": u}}, "`inputs` must be for the layers .*, got ssm"),
        ({"inputs": [u[0]]}, r"`inputs` for the layer must have shape \(sequences, .*\(200, 3\)"),
        ({"inputs": [u.at[0, 0, 0].set(jnp.nan)]}, "`inputs` for the layer must be finite, got"),
        ({"batch": u[:0]}, "`batch` must hold arrays with the same number of sequences"),
    ]:
        with pytest.raises(ValueError, match=message):
            plan(layer, policy=Ranks(4), method=Data(**arguments))
    with pytest.raises(ValueError, match="`model` must be"):
        plan(model, batch=u[..., :1])
    with pytest.raises(ValueError, match="`model` must be callable with `batch`, got a dict"):
        plan({"a": layer}, batch=u)
    planned = plan(layer, policy=Ranks(4), batch=u)
    other = eqx.tree_at(lambda m: m.C_re, layer, layer.C_re + 1)
    with pytest.raises(
        ValueError, match="`plan` must be for these parameters of the layer, got others"
    ):
        compress(other, plan=planned)
    for beside in (
        {"batch": u},
        {"method": WhiteNoise()},
        {"policy": Ranks(4)},
        {"tolerance": 0.1},
    ):
        name = next(iter(beside))
        with pytest.raises(ValueError, match=f"only one of .* got `plan` and `{name}`"):
            compress(layer, plan=planned, **beside)


@LAYERS
def test_gradient_factor_is_the_covariance_of_the_gradients_by_the_states(make, getkey):
    lti, g = double_lti(make(getkey())), slow_inputs(getkey(), b=2)
    L = gradient_factor(lti, g)
    log_lam, C = (jnp.asarray(x, jnp.complex64) for x in (lti.log_lam, lti.C))

    def outputs(pushes, g):  # a push at each sample moves the state there
        def step(x, push):
            x = jnp.exp(log_lam) * x + push
            return x, jnp.real(C @ x)

        return jnp.sum(jax.lax.scan(step, jnp.zeros(N, jnp.complex64), pushes)[1] * g)

    gradient = jax.vmap(jax.grad(outputs), (None, 0))(jnp.zeros((LENGTH, N), jnp.complex64), g)
    mu = np.conj(np.asarray(gradient)).reshape(-1, N) / 2  # JAX's gradients are conjugates
    for found, moments in ((L @ L.conj().T, mu.T @ mu.conj()), (L @ L.T, mu.T @ mu)):
        np.testing.assert_allclose(found, moments / len(mu), atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("factor", [data_factor, gradient_factor])
def test_padding_weighs_nothing(factor, getkey):
    """Moments of padded sequences are those of the sequences, each sample counting once."""
    lti, lengths = double_lti(lru(getkey())), np.array([LENGTH, 40, 1])
    u = np.asarray(slow_inputs(getkey(), b=len(lengths)))
    L = factor(lti, u, lengths)
    alone = [factor(lti, each[None, :n]) for each, n in zip(u, lengths, strict=True)]
    for moments in (lambda L: L @ L.conj().T, lambda L: L @ L.T):
        expected = sum(n * moments(L) for L, n in zip(alone, lengths, strict=True)) / lengths.sum()
        np.testing.assert_allclose(moments(L), expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(
    "layer", [lru(jax.random.key(0)), Mamba.init(H, 4, key=jax.random.key(1))], ids=["lru", "mamba"]
)
def test_what_stands_in_padding_changes_no_cut(layer):
    rng = np.random.default_rng(0)
    u, g, noise = rng.standard_normal((3, 4, 50, H)).astype(np.float32)
    lengths = np.array([50, 30, 7, 1])
    padding = np.arange(50) >= lengths[:, None]
    cuts = [
        compress(
            layer,
            policy=Ranks(2),
            method=Data(
                inputs=[np.where(padding[..., None], filled, u)],
                gradients=[np.where(padding[..., None], filled, g)],
                lengths=lengths,
                refit=True,
            ),
        )[0]
        for filled in (0 * noise, noise)
    ]
    for mine, other in zip(*map(jax.tree.leaves, cuts), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_lengths_that_do_not_fit_are_named(getkey):
    layer, u = lru(getkey()), slow_inputs(getkey(), b=3)
    for lengths in ([5, 5], [0, 5, 5], [5, 5, LENGTH + 1]):
        with pytest.raises(
            ValueError, match=r"`lengths` must be 3 numbers from 1 to 200 .*, got \d from \d to"
        ):
            plan(layer, method=Data(inputs=[u], lengths=np.array(lengths)))


def test_random_combinations_have_the_mean_of_all_derivatives(getkey):
    weights = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    model = [lru(getkey()), weights]

    def forward(model, u):
        return model[1] @ model[0](u)[-1]

    u = slow_inputs(getkey(), b=400)[:, :5]
    (g,) = output_gradients(model, u, forward).values()
    assert g.shape == u.shape
    assert not g[:, :-1].any()
    np.testing.assert_allclose(g[:, -1].T @ g[:, -1] / 400, weights.T @ weights, atol=0.6)
    (g,) = output_gradients(model, u, lambda m, u: jnp.sum(forward(m, u))).values()
    np.testing.assert_allclose(g[:, -1], np.broadcast_to([2.0, 1.0, 0.0], (400, 3)))


class CalledInside(eqx.Module):
    layer: LRU
    how: str

    def __call__(self, u):
        match self.how:
            case "vmap":
                return jax.vmap(self.layer)(u[None])
            case "jit":
                return eqx.filter_jit(self.layer)(u)
            case "lengths":
                return self.layer(u)[0] + self.layer(u[1:])[0]
            case _:
                return self.layer(u) * self.layer.D


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("vmap", "calls them inside a scan, vmap, jit or checkpoint of its own"),
        ("jit", "calls them inside a scan, vmap, jit or checkpoint of its own"),
        (
            "lengths",
            r"on sequences of one shape, got \[\(199, 3\), \(200, 3\)\]",
        ),
    ],
)
def test_models_that_cannot_be_recorded_say_what_else_there_is(how, message, getkey):
    with pytest.raises(ValueError, match=f"^`batch` must go .*{message}.*give `inputs`"):
        compress(CalledInside(lru(getkey()), how), batch=slow_inputs(getkey(), b=2))


def test_a_model_may_read_its_layers_parameters(getkey):
    model = CalledInside(lru(getkey()), "feedthrough")
    assert compress(model, batch=slow_inputs(getkey(), b=2), policy=Ranks(4))[0].layer.d_state == 4


def test_gradients_tell_what_the_output_is_used_for(getkey):
    model = [lru(getkey()), jnp.array([1.0, 0.0, 0.0])]

    def forward(model, u):
        return model[0](u) @ model[1]

    u, new = slow_inputs(getkey()), slow_inputs(getkey())
    given = {"inputs": layer_inputs(model, u, forward)}
    weighed = {**given, "gradients": output_gradients(model, u, forward)}
    truth = jax.vmap(lambda u: forward(model, u))(new)

    def error(evidence):
        small, _ = compress(model, policy=Ranks(3), method=Data(**evidence))
        return jnp.linalg.norm(jax.vmap(lambda u: forward(small, u))(new) - truth)

    assert error(weighed) < 0.9 * error(given)


@LAYERS
def test_refit_is_the_least_squares_solution(make, getkey):
    layer, u = make(getkey()), slow_inputs(getkey())
    cut, _ = compress(layer, policy=Ranks(3), method=WhiteNoise("complex"))
    lti = refit(double_lti(layer), double_lti(cut), u)
    y = run(layer, u)

    def error(C, D):
        candidate = cut.from_lti(DiagonalLTI(lti.log_lam, lti.B, C, D))
        return jnp.sum((run(candidate, u) - y) ** 2)

    C, D = jnp.asarray(lti.C, jnp.complex64), jnp.asarray(lti.D, jnp.float32)
    assert error(C, D) < 0.9 * error(cut.to_lti().C, cut.D)
    for change in (1.02, 0.98):
        assert error(C, D) < error(C * change, D)
        assert error(C, D) < error(C, D * change)


def test_refit_in_compress_and_in_silence(getkey):
    layer, u = lru(getkey()), slow_inputs(getkey())
    y, (row,) = run(layer, u), plan(layer, policy=Ranks(3), method=Data(u, refit=True)).layers
    assert row.bound == math.inf
    plain, fitted = (
        compress(layer, policy=Ranks(3), method=Data(u, refit=refit))[0] for refit in (False, True)
    )
    errors = [jnp.linalg.norm(run(small, u) - y) for small in (plain, fitted)]
    assert errors[1] < errors[0]
    silent, _ = compress(layer, policy=Ranks(3), method=Data(0 * u, refit=True))
    np.testing.assert_allclose(silent.D, layer.D)  # nothing was said of it


def test_data_may_serve_to_refit_alone(getkey):
    layer, u = lru(getkey()), slow_inputs(getkey())
    alone = Data(u, states=False, gradients=False, refit=True, form="complex")
    paper = plan(layer, policy=Ranks(3), method=WhiteNoise("complex")).layers[0]
    (row,) = plan(layer, policy=Ranks(3), method=alone).layers
    assert row.gramians == paper.gramians == "white noise, complex"
    np.testing.assert_array_equal(row.sigma, paper.sigma)
    assert (row.bound, row.floor) == (math.inf, 0)
    assert paper.bound < math.inf
    np.testing.assert_array_equal(row.cut.after.B_re, paper.cut.after.B_re)
    y = run(layer, u)
    errors = [jnp.linalg.norm(run(x.cut.after, u) - y) for x in (paper, row)]
    assert errors[1] < 0.9 * errors[0]
    (weighed,) = plan(layer, policy=Ranks(3), method=Data(u, states=False)).layers
    assert weighed.gramians == "gradients"


def test_gradients_go_with_inputs(getkey):
    layer, u = lru(getkey()), slow_inputs(getkey())
    with pytest.raises(ValueError, match="`gradients` must be True or False beside `batch`, got"):
        Data(u, gradients=[u])
    with pytest.raises(ValueError, match=r"`gradients` for the layer must .*, got \(200, 3\)"):
        plan(layer, method=Data(inputs=[u], gradients=[u[0]]))


def test_a_part_of_many_samples_is_enough(getkey, monkeypatch):
    lti, u = double_lti(lru(getkey())), slow_inputs(getkey(), b=40)
    monkeypatch.setattr(empirical, "sample_count", lambda n: u.shape[0] * u.shape[1])
    L = data_factor(lti, u)
    monkeypatch.setattr(empirical, "sample_count", lambda n: 2000)
    part = data_factor(lti, u)
    assert not np.allclose(part @ part.conj().T, L @ L.conj().T, rtol=1e-6)
    assert np.linalg.norm(part @ part.conj().T - L @ L.conj().T) < 0.1 * np.linalg.norm(L) ** 2
