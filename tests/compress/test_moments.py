"""The optimizer's state across a shrink: exact where it can be, close where it should be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Data, Rank, Ranks, WhiteNoise, compress
from zoo import LRU, S5

H, N, R, LENGTH = 2, 24, 14, 150


def lru(key):
    """Its gamma_log has been trained away from the value that `from_lti` gives it."""
    layer = LRU.init(H, N, key=key, r_min=0.3, r_max=0.95)
    return eqx.tree_at(lambda m: m.gamma_log, layer, layer.gamma_log + jnp.linspace(-0.5, 0.5, N))


def s5(key):
    return S5.init(H, N, key=key)


def s5_bilinear(key):
    return S5.init(H, N, key=key, discretization="bilinear")


LAYERS = pytest.mark.parametrize("make", [lru, s5, s5_bilinear])


@eqx.filter_jit
def gradient(layer, u, target):
    return eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(u) - target) ** 2))(layer)


def gradient_of_a_smooth_loss(layer):
    u = jax.random.normal(jax.random.key(3), (32, LENGTH, H))
    return gradient(layer, u, jnp.cumsum(u, axis=1) / 10)


FORMS = pytest.mark.parametrize("form", ["complex", "real"])


# ------------------------------------------------------------------------------- optimizers


def labels(params):
    """Two groups, as the training script has them."""

    def label(path, _):
        return "ssm" if path[-1].name in LRU.dynamics + S5.dynamics else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


OPTIMIZERS = {
    "adamw": optax.adamw(1e-3),
    "chain": optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(1e-3, 100)),
        optax.add_decayed_weights(1e-2),
    ),
    "groups": optax.multi_transform({"ssm": optax.adam(1e-4), "rest": optax.adamw(1e-3)}, labels),
    "frozen": optax.multi_transform({"ssm": optax.set_to_zero(), "rest": optax.adam(1e-3)}, labels),
    "masked": optax.masked(optax.trace(0.9), lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
    "injected": optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3),
    "multi_steps": optax.MultiSteps(optax.adamw(1e-3), 3),
    "sgd": optax.sgd(1e-3),
    "momentum": optax.sgd(1e-3, momentum=0.9, nesterov=True),
    "lion": optax.lion(1e-4),
    "rmsprop": optax.rmsprop(1e-3, momentum=0.9),
    "amsgrad": optax.amsgrad(1e-3),
    "adagrad": optax.adagrad(1e-3),
    "adafactor": optax.adafactor(1e-3),
    "adafactor_factored": optax.adafactor(1e-3, min_dim_size_to_factor=2),
    "novograd": optax.novograd(1e-3),
    "sm3": optax.sm3(1e-3),
    "lbfgs": optax.scale_by_lbfgs(3),  # with moments="reset" alone
    "half": optax.adamw(1e-3, mu_dtype=jnp.bfloat16),
    "ema": optax.chain(optax.scale_by_adam(), optax.scale(-1e-3), optax.ema(0.9)),
    "schedule_free": optax.contrib.schedule_free_adamw(1e-3),
    "prodigy": optax.contrib.prodigy(),
    "finite": optax.apply_if_finite(optax.adamw(1e-3), 3),
}


def describe(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


LIKE_OTHERS = ("amsgrad", "adagrad", "adafactor", "ema", "momentum", "novograd", "rmsprop")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LIKE_OTHERS)) for n in OPTIMIZERS],
)
def test_every_optimizer_goes_on(name, getkey):
    optimizer = OPTIMIZERS[name]
    model = {"first": lru(jax.random.key(0)), "second": (s5(jax.random.key(1)),)}
    traces = []

    @jax.jit
    def update(grads, state, params):
        traces.append(name)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, jax.tree.map(lambda x: 1e-3 * x, updates)), state

    def grads_of(model):
        return jax.tree.map(lambda x: jax.random.normal(getkey(), x.shape) * 0.1, model)

    state = optimizer.init(model)
    for _ in range(2):
        model, state = update(grads_of(model), state, model)
    moments = "reset" if name == "lbfgs" else "transport"
    ranks = {"['first']": 7, "['second'][0]": 9}
    model, state = compress(model, state, policy=Ranks(ranks), moments=moments)
    assert describe(state) == describe(optimizer.init(model))
    for _ in range(2):
        model, state = update(grads_of(model), state, model)
    assert len(traces) == 2
    for x in jax.tree.leaves((model, state)):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("moments", ["transport", "reset", "slice"])
@LAYERS
def test_an_adamw_step_after_the_cut(make, moments, getkey):
    layer, optimizer = make(getkey()), optax.adamw(1e-3, weight_decay=0.1)
    state = optimizer.init(layer)
    for _ in range(3):
        updates, state = optimizer.update(gradient_of_a_smooth_loss(layer), state, layer)
        layer = eqx.apply_updates(layer, updates)
    before = [jnp.abs(m) / jnp.sqrt(v) for m, v in moment_pairs(state)]
    small, carried = compress(layer, state, policy=Ranks(R), moments=moments)
    assert carried[0].count == 3
    for v in jax.tree.leaves(carried[0].nu):
        assert np.all(np.isfinite(v))
        assert np.all(np.asarray(v) >= 0)
    if moments == "transport":
        after = [jnp.abs(m) / jnp.sqrt(v) for m, v in moment_pairs(carried)]
        assert max(map(jnp.max, after)) <= max(map(jnp.max, before)) * 1.001
    updates, carried = optimizer.update(gradient_of_a_smooth_loss(small), carried, small)
    small = eqx.apply_updates(small, updates)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(small))
    assert small.to_lti().spectral_radius() < 1


def moment_pairs(state):
    return zip(jax.tree.leaves(state[0].mu), jax.tree.leaves(state[0].nu), strict=True)


def test_second_moments_are_of_the_right_size(getkey):
    """Those of the reduced model itself, within a factor of ten (slicing is off by a thousand)."""
    layer = lru(getkey())
    small, _ = compress(layer, policy=Ranks(R))
    keys = jax.random.split(getkey(), 40)

    @eqx.filter_jit
    def mean_squares(layer):
        def squares(key):
            u = jax.random.normal(key, (4, LENGTH, H))
            return jax.tree.map(jnp.square, gradient(layer, u, jnp.cumsum(u, axis=1) / 10))

        return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.lax.map(squares, keys))

    state = optax.ScaleByRmsState(nu=mean_squares(layer))
    _, carried = compress(layer, state, policy=Ranks(R))
    for x, y in zip(jax.tree.leaves(carried.nu), jax.tree.leaves(mean_squares(small)), strict=True):
        assert abs(np.median(np.log10(np.asarray(x) / np.asarray(y)))) < 1


def test_groups_are_carried_together(getkey):
    """Moments in two parts, one for each group, come out as those in one piece."""
    layer = lru(getkey())
    one, two = optax.adam(1e-3), OPTIMIZERS["groups"]
    grads = gradient_of_a_smooth_loss(layer)
    (_, one_state), (_, two_state) = (o.update(grads, o.init(layer), layer) for o in (one, two))
    _, one_state = compress(layer, one_state, policy=Ranks(R))
    _, two_state = compress(layer, two_state, policy=Ranks(R))
    inner = {name: group.inner_state[0] for name, group in two_state.inner_states.items()}
    for k, field in enumerate(["nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im"]):
        group = inner["ssm" if field in LRU.dynamics else "rest"]
        for moment in ("mu", "nu"):
            expected = getattr(getattr(one_state[0], moment), field)
            np.testing.assert_allclose(getattr(getattr(group, moment), field), expected, rtol=1e-5)
        assert k < 5 or isinstance(getattr(inner["ssm"].mu, field), optax.MaskedNode)


def test_what_lies_outside_stays(getkey):
    model = (eqx.nn.Linear(2, 2, key=getkey()), lru(getkey()))
    optimizer = optax.adamw(1e-3)
    state = optimizer.init(model)
    grads = jax.tree.map(lambda x: jax.random.normal(getkey(), x.shape), model)
    _, state = optimizer.update(grads, state, model)
    for moments in ("transport", "reset", "slice"):
        _, carried = compress(model, state, policy=Ranks(R), moments=moments)
        assert carried[0].count is state[0].count
        assert carried[0].mu[0].weight is state[0].mu[0].weight
        assert carried[0].nu[1].D is state[0].nu[1].D
        np.testing.assert_array_equal(carried[0].mu[1].D, state[0].mu[1].D)
    _, reset = compress(model, state, policy=Ranks(R), moments="reset")
    assert not np.any(reset[0].mu[1].B_re)
    _, sliced = compress(model, state, policy=Ranks(R), moments="slice")
    np.testing.assert_array_equal(sliced[0].nu[1].C_im, state[0].nu[1].C_im[:, :R])


@pytest.mark.parametrize("make", [lru, s5])
@FORMS
@pytest.mark.parametrize("name", ["params", "average"])  # by its place, keys of dicts say nothing
def test_copies_of_the_parameters_are_projected(make, form, name, getkey):
    layer = make(getkey())
    other = jax.tree.map(lambda x: x * 1.01, layer)
    small, state = compress(
        layer, {name: (layer, other)}, policy=Ranks(20), method=WhiteNoise(form)
    )
    for x, y in zip(jax.tree.leaves(state[name][0]), jax.tree.leaves(small), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    u = jax.random.normal(getkey(), (LENGTH, H))
    small_other = state[name][1]
    run = eqx.filter_jit(lambda layer, u: layer(u))
    y, small_y, expected = run(small, u), run(small_other, u), run(other, u)
    assert jnp.linalg.norm(small_y - expected) < 0.1 * jnp.linalg.norm(expected)
    halfway = run(jax.tree.map(lambda x, y: (x + y) / 2, small, small_other), u)
    assert jnp.linalg.norm(halfway - y) < 0.2 * jnp.linalg.norm(y)


@pytest.mark.parametrize("make", [lru, s5])
def test_copies_of_the_parameters_are_refitted_with_them(make, getkey):
    layer = make(getkey())
    u = jnp.cumsum(jax.random.normal(getkey(), (4, LENGTH, H)), axis=1)
    how = Data(u, states=False, gradients=False, refit=True)
    copy = jax.tree.map(lambda x: x, layer)
    small, (average,) = compress(layer, (copy,), policy=Rank(6), method=how)
    assert not np.array_equal(small.D, layer.D)
    for x, y in zip(jax.tree.leaves(average), jax.tree.leaves(small), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


def test_momentum_without_a_negative_number_is_momentum(getkey):
    """Carried with the squares beside it: no ratio of the two exceeds what it was."""
    layer = lru(getkey())
    optimizer = optax.adam(1e-3)
    gradients = jax.tree.map(lambda x: jnp.abs(jax.random.normal(getkey(), x.shape)), layer)
    _, state = optimizer.update(gradients, optimizer.init(layer))
    _, state = compress(layer, state, policy=Ranks(6))
    pairs = zip(jax.tree.leaves(state[0].mu), jax.tree.leaves(state[0].nu), strict=True)
    assert max(float(jnp.max(mu**2 / nu)) for mu, nu in pairs) <= 0.1**2 / 1e-3 * (1 + 1e-4)


def test_sums_over_axes_of_one_length_are_told_apart():
    layer, optimizer = LRU.init(8, 8, key=jax.random.key(0)), optax.sm3(1e-3)
    small, state = compress(layer, optimizer.init(layer), policy=Ranks(5))
    assert describe(state) == describe(optimizer.init(small))


def test_a_model_inside_a_tuple_is_matched_by_the_end_of_its_path(getkey):
    model = {"blocks": [lru(getkey()), lru(getkey())]}
    state = optax.adam(1e-3).init(model)
    _, carried = compress((model, "state"), state, policy=Ranks([5, 6]))
    assert [layer.d_state for layer in carried[0].mu["blocks"]] == [5, 6]
