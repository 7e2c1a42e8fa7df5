"""Compressing whole models: the bound holds, types stay, and what is not cut is left alone."""

import io
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from compress import (
    ErrorBudget,
    Fraction,
    GlobalBudget,
    Jointly,
    LossBudget,
    PerLayer,
    Rank,
    Ranks,
    Tolerance,
    WhiteNoise,
    compress,
    hankel_singular_values,
    plan,
    verify,
)
from zoo import LRU, S5, AbstractSSM, Bidirectional, DiagonalLTI
from zoo.network.classifier import classifier

H, N, LENGTH = 3, 20, 60


def lru(key):
    return LRU.init(H, N, key=key, r_min=0.2, r_max=0.95)


def s5(key):
    return S5.init(H, N, key=key)


def s5_bilinear(key):
    return S5.init(H, N, key=key, discretization="bilinear")


LAYERS = [lru, s5, s5_bilinear]


class TwoLayers(eqx.Module):
    """A model that is not ours: only its layers are."""

    encoder: eqx.nn.Linear
    ssm: LRU
    more: list[S5]
    activation: Any = jax.nn.gelu

    def __call__(self, x):
        h = self.activation(self.ssm(jax.vmap(self.encoder)(x)))
        return jnp.mean(self.more[0](h), axis=0)


@pytest.fixture
def model(getkey):
    return TwoLayers(eqx.nn.Linear(1, H, key=getkey()), lru(getkey()), [s5(getkey())])


def kind_of(x):
    return (x.dtype, x.weak_type, x.committed) if isinstance(x, jax.Array) else x


@eqx.filter_jit
def run(layer, u):
    return jax.vmap(layer)(u)


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize(
    "choice",
    [
        {"tolerance": 0.3},
        {"policy": Rank(6)},
        {"policy": Ranks(6), "method": WhiteNoise("complex")},
    ],
)
def test_outputs_stay_within_the_bound(make, choice, getkey):
    layer = make(getkey())
    planned = plan(layer, **choice)
    small, _ = compress(layer, plan=planned)
    assert small.d_state == planned.layers[0].rank_after < N
    u = jax.random.normal(getkey(), (4, LENGTH, H))
    errors = jnp.linalg.norm(run(layer, u) - run(small, u), axis=(1, 2))
    allowed = planned.layers[0].bound * jnp.linalg.norm(u, axis=(1, 2))
    assert bool(jnp.all(errors <= allowed * (1 + 1e-4) + 1e-5))


@pytest.mark.parametrize("make", LAYERS)
def test_streaming_equals_parallel_after_a_shrink(make, getkey):
    small, _ = compress(make(getkey()), policy=Ranks(6))
    u = jax.random.normal(getkey(), (4, LENGTH, H))
    _, y = jax.lax.scan(lambda carry, u_t: small.step(carry, u_t), small.init_state(), u[0])
    np.testing.assert_allclose(y, run(small, u)[0], atol=1e-5)


@pytest.mark.parametrize("make", LAYERS)
def test_the_layer_stays_of_its_kind(make, getkey):
    layer = make(getkey())
    small, none = compress(layer, tolerance=0.2)
    assert none is None
    assert type(small) is type(layer)
    assert jax.tree.structure(small) == jax.tree.structure(layer)
    assert jax.tree.map(kind_of, small) == jax.tree.map(kind_of, layer)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(small))
    assert small.to_lti().spectral_radius() < 1
    np.testing.assert_array_equal(small.D, layer.D)


def test_weak_types_placement_and_numpy_arrays_stay(getkey):
    layer = lru(getkey())
    layer = eqx.tree_at(lambda m: m.nu_log, layer, jnp.full((N,), -1.0))
    assert layer.nu_log.weak_type
    placed = jax.device_put(layer.theta_log, jax.devices()[0])
    layer = eqx.tree_at(lambda m: m.theta_log, layer, placed)
    half = layer.B_re.astype(jnp.bfloat16)
    layer = eqx.tree_at(lambda m: (m.C_re, m.B_re), layer, (np.asarray(layer.C_re), half))
    small, _ = compress(layer, policy=Ranks(5))
    assert jax.tree.map(kind_of, small.nu_log) == kind_of(layer.nu_log)
    assert small.theta_log.committed
    assert not small.gamma_log.committed
    assert type(small.C_re) is np.ndarray
    assert small.B_re.dtype == jnp.bfloat16


def test_a_model_in_double_precision_stays_there(x64, getkey):
    layer = lru(getkey())
    layer = jax.tree.map(lambda x: x.astype(jnp.float64), layer)
    small, _ = compress(layer, policy=Ranks(5))
    assert {x.dtype for x in jax.tree.leaves(small)} == {jnp.dtype("float64")}


def test_every_layer_of_a_model_is_found(model):
    planned = plan(model, tolerance=0.2)
    assert [row.path for row in planned.layers] == ["ssm", "more[0]"]
    small, _ = compress(model, plan=planned)
    assert planned.ranks == {"ssm": small.ssm.d_state, "more[0]": small.more[0].d_state}
    assert small.encoder.weight is model.encoder.weight
    assert small.activation is model.activation


@pytest.mark.parametrize("make", LAYERS)
def test_sigma_of_the_plan_are_those_of_the_layer(make, getkey):
    layer = make(getkey())
    (row,) = plan(layer, policy=Ranks(7), method=WhiteNoise("complex")).layers
    sigma = hankel_singular_values(layer.to_lti(), form="complex")
    np.testing.assert_allclose(row.sigma, sigma, rtol=1e-3)
    np.testing.assert_allclose(row.floor, row.sigma[7])
    np.testing.assert_allclose(row.bound, 2 * row.sigma[7:].sum())
    (row,) = plan(layer, policy=Ranks(7)).layers
    sigma = hankel_singular_values(layer.to_lti())
    np.testing.assert_allclose(row.sigma, sigma[::2] + sigma[1::2], rtol=1e-3)


def test_our_classifier_with_its_state(getkey):
    model, state = classifier(
        lambda key: LRU.init(H, N, key=key, r_max=0.9, r_min=0.1),
        input_kind="real",
        input_size=1,
        classes=4,
        d_model=H,
        blocks=2,
        bidirectional=True,
        key=getkey(),
    )
    paths = [
        f"[0].blocks[{k}].ssm.{direction}"
        for k in range(2)
        for direction in ("forward", "backward")
    ]
    assert [row.path for row in plan((model, state)).layers] == paths
    (small, same_state), _ = compress((model, state), policy=Ranks(5))
    assert same_state is state
    assert isinstance(small.blocks[0].ssm, Bidirectional)
    assert small.blocks[1].ssm.backward.d_state == 5
    y, _ = eqx.nn.inference_mode(small)(jnp.ones((LENGTH, 1)), same_state)
    assert bool(jnp.all(jnp.isfinite(y)))


def test_dicts_and_tuples_of_models(getkey):
    models = {"a": lru(getkey()), "b": (s5(getkey()), 3, "text")}
    small, _ = compress(models, policy=Ranks({"['b'][0]": 7}))
    assert small["a"] is models["a"]
    assert small["b"][0].d_state == 7
    assert small["b"][1:] == (3, "text")


def test_one_object_in_two_places_is_cut_alike(getkey):
    layer = lru(getkey())
    first, second = compress((layer, layer), policy=Ranks(6))[0]
    assert first is second
    first, second = compress((layer, layer), policy=Ranks([6, 7]))[0]
    assert (first.d_state, second.d_state) == (6, 7)


@pytest.mark.parametrize(
    "choice",
    [
        {"tolerance": 0},
        {"policy": Tolerance().gated(0.01)},
        *({"policy": Ranks(r)} for r in (N, {}, [N, N])),
    ],
)
def test_nothing_cut_is_nothing_changed(model, choice):
    opt_state = optax.adamw(1e-3).init(eqx.filter(model, eqx.is_inexact_array))
    same, same_state = compress(model, opt_state, **choice)
    assert same is model
    assert same_state is opt_state


def test_layers_that_are_not_cut_are_the_same_objects(model):
    opt_state = optax.adamw(1e-3).init(eqx.filter(model, eqx.is_inexact_array))
    small, small_state = compress(model, opt_state, policy=Ranks({"ssm": 4}))
    assert small.more[0] is model.more[0]
    assert small_state[0].mu.more[0] is opt_state[0].mu.more[0]
    assert small_state[0].count is opt_state[0].count


def test_a_gate_of_one_lets_every_cut_pass(getkey):
    layer = lru(getkey())
    policy = PerLayer(lambda sigma: N - 1)
    assert compress(layer, policy=policy)[0] is layer
    assert compress(layer, policy=Rank(N - 1).gated(0.95))[0] is layer
    assert compress(layer, policy=policy.gated(1))[0].d_state == N - 1
    assert compress(layer, policy=Rank(N - 1))[0].d_state == N - 1
    assert compress(layer, policy=Ranks(N - 1))[0].d_state == N - 1


def test_policies_reach_the_layers(model):
    policy = Fraction(0.3).rounded(4)
    assert plan(model, policy=policy).ranks == {"ssm": 8, "more[0]": 8}


def test_budgets_for_the_whole_model(model, getkey):
    planned = plan(model, policy=GlobalBudget(14))
    assert sum(planned.ranks.values()) == 14
    x = jax.random.normal(getkey(), (LENGTH, 1))
    y = model(x)

    def loss(model):
        return float(jnp.linalg.norm(model(x) - y))

    small, _ = compress(model, policy=LossBudget(loss, 0.05 * float(jnp.linalg.norm(y)), steps=3))
    assert 0 < loss(small) <= 0.05 * jnp.linalg.norm(y)
    assert small.ssm.d_state < N


@pytest.mark.parametrize(
    "policy", [PerLayer(lambda _: np.int64(6)), Jointly(lambda sigmas, _: [np.int64(6)])]
)
def test_whole_numbers_of_any_kind_are_ranks(policy, getkey):
    layer = lru(getkey())
    assert plan(layer, policy=policy).ranks == {"": 6}
    assert plan(layer, policy=Ranks(np.int64(6))).ranks == {"": 6}
    assert plan(layer, policy=Ranks([np.int32(6)])).ranks == {"": 6}
    with pytest.raises(ValueError, match=r"`policy` must give whole numbers, .*, got 6\.0"):
        plan(layer, policy=PerLayer(lambda _: 6.0))
    with pytest.raises(ValueError, match=r"`ranks` must give whole .* got array\(\[6, 7\]\)"):
        plan(layer, policy=Ranks(np.array([6, 7])))


def real_modes(getkey):
    n, m = 8, 2
    log_lam = jnp.log1p(-(2.0 ** -jnp.arange(1.0, n + 1))) + 0j
    B, C = (jax.random.normal(getkey(), shape) + 0j for shape in ((n, m), (m, n)))
    return LRU.init(m, n, key=getkey()).from_lti(DiagonalLTI(log_lam, B, C, jnp.zeros(m)))


@pytest.mark.parametrize("tau", [1e-3, 0.01, 0.03])
def test_real_modes_do_not_cost_more_than_is_allowed(tau, getkey):
    layer = real_modes(getkey)
    (row,) = plan(layer, tolerance=tau).layers
    assert row.bound <= 2 * tau * row.sigma.sum() * (1 + 1e-6)
    (same,) = plan(layer, policy=Tolerance(tau)).layers
    assert same.rank_after == row.rank_after
    (as_it_is,) = plan(layer, policy=PerLayer(Tolerance(tau).rank)).layers
    assert as_it_is.bound > 2 * tau * row.sigma.sum()  # half of the values that the rank stood for
    (by_bound,) = plan(layer, policy=ErrorBudget(tau)).layers
    assert by_bound.bound <= tau * row.sigma[0] * (1 + 1e-6)
    (rounded,) = plan(layer, policy=Tolerance(tau).rounded(2)).layers
    assert rounded.rank_after == row.rank_after + row.rank_after % 2
    assert rounded.bound <= row.bound


def test_ties_do_not_break_multiples(getkey):
    """Two copies of one system side by side: every value stands twice."""
    one = lru(getkey()).to_lti()
    B, C = (jnp.kron(jnp.eye(2), x) for x in (one.B, one.C))
    twice = DiagonalLTI(jnp.tile(one.log_lam, 2), B, C, jnp.zeros(B.shape[1]))
    layer = LRU.init(B.shape[1], len(B), key=getkey()).from_lti(twice)
    (row,) = plan(layer, policy=ErrorBudget(0.5).rounded(3), method=WhiteNoise("complex")).layers
    (untied,) = plan(layer, policy=ErrorBudget(0.5), method=WhiteNoise("complex")).layers
    assert row.rank_after % 3 == 0
    assert 0 <= row.rank_after - untied.rank_after < 6


def test_no_system_of_so_many_states_is_under_the_floor(getkey):
    layer = real_modes(getkey)
    sigma = hankel_singular_values(layer.to_lti())
    for r in (1, 2, 3):
        (row,) = plan(layer, policy=Ranks(r)).layers
        (certificate,) = verify(layer, row.cut.after).layers
        np.testing.assert_allclose([row.floor, certificate.floor], sigma[2 * r], rtol=1e-3)


def test_a_field_that_is_shared_is_named(getkey):
    layers = [s5(getkey()), s5(getkey())]
    shared = eqx.nn.Shared(layers, lambda m: m[1].log_step, lambda m: m[0].log_step)
    with pytest.raises(ValueError, match=r"\[1\]\.log_step must be an array .*got a SharedNode"):
        compress(shared)


def test_plans_can_be_compared(model):
    planned = plan(model)
    assert planned == planned
    assert planned != plan(model)


def test_states_that_do_nothing_go_first(getkey):
    layer = lru(getkey())
    layer = eqx.tree_at(lambda m: m.B_re, layer, layer.B_re.at[3:].set(0))
    layer = eqx.tree_at(lambda m: m.B_im, layer, layer.B_im.at[3:].set(0))
    small, _ = compress(layer, tolerance=0)
    assert small.d_state == 3
    u = jax.random.normal(getkey(), (LENGTH, H))
    np.testing.assert_allclose(small(u), layer(u), atol=1e-5)


@pytest.mark.parametrize("make", LAYERS)
def test_a_layer_of_zeros_keeps_one_state(make, getkey):
    layer = make(getkey())
    zero = jnp.zeros_like(layer.C_re)
    layer = eqx.tree_at(lambda m: (m.C_re, m.C_im), layer, (zero, zero))
    small, _ = compress(layer)
    assert small.d_state == 1
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(small))


def test_the_plan_prints_as_a_table(model):
    planned = plan(model, policy=Ranks([5, 6]))
    lines = str(planned).splitlines()
    assert " ".join(lines[0].split()) == "layer states after sigma_1 error >= error <= from"
    assert lines[1].split()[:3] == ["ssm", str(N), "5"]
    assert lines[-1].split() == ["total", str(2 * N), "11"]
    assert len({len(line) for line in lines}) == 1
    console = Console(width=100, file=io.StringIO())
    console.print(planned)
    assert "more[0]" in console.file.getvalue()


def test_ten_lines_of_optax(getkey):
    model, optimizer = lru(getkey()), optax.adamw(1e-2)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    u = jax.random.normal(getkey(), (8, LENGTH, H))
    y = jnp.cumsum(u, axis=1) / 10
    traces, losses = [], []

    @eqx.filter_jit
    def step(model, opt_state):
        traces.append(model.d_state)
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(u) - y) ** 2))(
            model
        )
        updates, opt_state = optimizer.update(grads, opt_state, model)
        return eqx.apply_updates(model, updates), opt_state, loss

    for k in range(60):
        model, opt_state, loss = step(model, opt_state)
        losses.append(float(loss))
        if k == 29:
            model, opt_state = compress(model, opt_state, tolerance=0.05)
    assert traces == [N, model.d_state]
    assert model.d_state < N
    assert losses[30] < losses[0]
    assert losses[-1] < losses[29]


def broken(layer: AbstractSSM, field: str, value: float):
    return eqx.tree_at(
        lambda m: getattr(m, field), layer, jnp.full_like(getattr(layer, field), value)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 1.0}, r"`tolerance` must be 0 or more and below 1, got 1.0"),
        ({"tolerance": -1}, r"`tolerance` must be .*, got -1"),
        ({"policy": Ranks(0)}, r"`ranks` for ssm must be 1 to 20, its d_state, got 0"),
        ({"policy": Ranks([5, 21])}, r"`ranks` for more\[0\] must be 1 to 20, .*, got 21"),
        ({"policy": Ranks([5])}, r"`ranks` must have 2 entries, one for each layer, got 1"),
        ({"policy": Ranks({"smm": 5})}, r"`ranks` must name layers \(ssm, more\[0\]\), got 'smm'"),
        ({"tolerance": 0.1, "policy": Rank(5)}, r"only one of .* got `policy` and `tolerance`"),
        ({"moments": "keep"}, r"`moments` must be one of transport, reset, slice, got 'keep'"),
    ],
)
def test_bad_arguments_are_named(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        compress(model, **arguments)


def test_bad_models_are_named(model, getkey):
    with pytest.raises(ValueError, match=r"`model` must hold an AbstractSSM layer, got a Linear"):
        compress(model.encoder)
    nan = eqx.tree_at(lambda m: m.more[0], model, broken(model.more[0], "B_im", jnp.nan))
    with pytest.raises(ValueError, match=r"^more\[0\]\.B_im holds NaN or infinity in 60 of its 60"):
        plan(nan)
    with pytest.raises(
        ValueError, match=r"^more\[0\] must be stable, of spectral radius below 1, got 1"
    ):
        plan(eqx.tree_at(lambda m: m.more[0], model, broken(s5(getkey()), "log_step", -1e3)))
    with pytest.raises(ValueError, match="`plan` must be for layers of states"):
        compress(model, plan=plan(model.ssm))
    with pytest.raises(ValueError, match="call this outside jit"):
        eqx.filter_jit(lambda m: compress(m, policy=Ranks(3)))(model)
