"""States of optimizers that cannot be carried, and those that nothing is declared of."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Ranks, compress
from compress.optimizer import register_state
from compress.optimizer.registry import _registered
from zoo import LRU, S5, AbstractLinearSSM, DiagonalLTI

H, N = 2, 24


def lru(key):
    return LRU.init(H, N, key=key, r_min=0.3, r_max=0.95)


def gradient_of_a_smooth_loss(layer):
    u = jax.random.normal(jax.random.key(3), (8, 50, H))

    @eqx.filter_jit
    def gradient(layer):
        target = jnp.cumsum(u, axis=1) / 10
        return eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(u) - target) ** 2))(layer)

    return gradient(layer)


# ----------------------------------------------------------------------------------- refusals


class Mixed(AbstractLinearSSM):
    """A layer whose parameters do not act entry by entry: B is a product."""

    dynamics = ("log_decay",)
    log_decay: jax.Array
    left: jax.Array
    right: jax.Array
    D: jax.Array

    @property
    def d_model(self):
        return self.D.shape[0]

    @property
    def d_state(self):
        return self.log_decay.shape[0]

    def __call__(self, u):
        return self.to_lti().simulate(u)

    def init_state(self):
        return jnp.zeros(self.d_state, jnp.complex64)

    def step(self, carry, u_t):
        raise NotImplementedError

    def run(self, carry, u, length=None):
        raise NotImplementedError

    def to_lti(self):
        B = self.left @ self.right
        return DiagonalLTI(-jnp.exp(self.log_decay) + 0j, B + 0j, B.T + 0j, self.D)

    def from_lti(self, lti):
        B = jnp.real(lti.B)
        decay = jnp.log(-jnp.real(lti.log_lam))
        return Mixed(decay, B, jnp.eye(B.shape[1], dtype=B.dtype), jnp.asarray(lti.D))


def test_a_layer_of_another_make_can_be_cut_but_not_transported(getkey):
    layer = Mixed(
        jnp.linspace(-3.0, 0.0, 8),
        jax.random.normal(getkey(), (8, 2)),
        jax.random.normal(getkey(), (2, 2)),
        jnp.zeros(2),
    )
    state = optax.adam(1e-3).init(layer)
    with pytest.raises(ValueError, match=r"for Mixed, whose parameters do not act entry by entry"):
        compress(layer, state, policy=Ranks(3))
    small, state = compress(layer, state, policy=Ranks(3), moments="reset")
    assert state[0].mu.left.shape == small.left.shape == (3, 2)


def test_states_of_another_model_are_refused(getkey):
    layer, other = lru(getkey()), LRU.init(H, N - 4, key=getkey())
    with pytest.raises(
        ValueError, match=r"\[0\].mu must be of this model, .* got an array of shape \(20,\)"
    ):
        compress(layer, optax.adam(1e-3).init(other), policy=Ranks(5))


def test_states_that_fit_two_layers_are_refused(getkey):
    model = {"a": lru(getkey()), "b": lru(getkey())}
    state = optax.adam(1e-3).init(model["a"])
    with pytest.raises(ValueError, match=r"\[0\].mu fits \['a'\] and \['b'\] equally well"):
        compress(model, state, policy=Ranks(5))
    states = {name: optax.adam(1e-3).init(layer) for name, layer in model.items()}
    _, carried = compress(model, states, policy=Ranks([5, 6]))
    assert [carried[name][0].mu.d_state for name in "ab"] == [5, 6]


def test_of_layers_that_fit_alike_the_one_whose_path_begins_alike_owns_the_state(getkey):
    layers = lru(getkey()), lru(getkey())
    optimizer = optax.chain(optax.clip(1), optax.scale_by_adam())
    state = tuple(optimizer.init(layer) for layer in layers)
    copy = optax.LookaheadParams(layers[1], None)  # cut as layer [1] is
    small, after = compress(layers, (state[0], (state[1][0], copy)), policy=Ranks([4, 5]))
    np.testing.assert_array_equal(after[1][1].fast.nu_log, small[1].nu_log)
    assert after[0][1].mu.d_state == 4


def test_keys_of_dicts_say_nothing_of_what_is_there(getkey):
    layer, optimizer = lru(getkey()), optax.adam(1e-3)
    grads = gradient_of_a_smooth_loss(layer)
    _, expected = compress(
        layer, optimizer.update(grads, optimizer.init(layer))[1], policy=Ranks(5)
    )
    state = optimizer.update({"params": grads}, optimizer.init({"params": layer}))[1]
    _, after = compress(layer, state, policy=Ranks(5))
    assert eqx.tree_equal(after[0].mu["params"], expected[0].mu)


# ---------------------------------------------------------------- what nothing is declared of


@pytest.fixture
def registered():
    """What a test registers is forgotten after it."""
    before = dict(_registered)
    yield
    _registered.clear()
    _registered.update(before)


class Velocity(NamedTuple):
    count: jax.Array
    speed: LRU


class Average(eqx.Module):
    model: LRU


def test_a_class_that_nothing_is_declared_of_is_refused(getkey, registered):
    layer = lru(getkey())
    state = Velocity(jnp.zeros(()), gradient_of_a_smooth_loss(layer))
    with pytest.raises(ValueError, match=r"'speed' of Velocity .*register_state\(Velocity, speed="):
        compress(layer, (state, optax.EmptyState()), policy=Ranks(5))
    _, reset = compress(layer, state, policy=Ranks(5), moments="reset")
    assert not np.any(reset.speed.B_re)
    _, expected = compress(layer, optax.TraceState(state.speed), policy=Ranks(5))
    register_state(Velocity, count="scalar", speed="gradient")
    _, after = compress(layer, state, policy=Ranks(5))
    assert eqx.tree_equal(after.speed, expected.trace)
    assert after.count is state.count


def test_a_module_around_an_average_is_refused_until_it_is_declared(getkey, registered):
    layer = lru(getkey())
    average = jax.tree.map(lambda x: x, layer)
    with pytest.raises(ValueError, match="what 'model' of Average means"):
        compress(layer, Average(average), policy=Ranks(5))
    register_state(Average, model="parameter")
    small, after = compress(layer, Average(average), policy=Ranks(5))
    np.testing.assert_allclose(after.model.nu_log, small.nu_log, rtol=1e-4)


def test_a_field_that_is_not_declared_is_named(getkey, registered):
    layer = lru(getkey())
    register_state(Velocity, count="scalar")
    with pytest.raises(ValueError, match="'speed' of Velocity"):
        compress(layer, Velocity(jnp.zeros(()), layer), policy=Ranks(5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"momentum": "gradient"},
            "fields must be among count, speed for Velocity, got 'momentum'",
        ),
        ({"speed": "momentum"}, "speed must be one of gradient, square.*got 'momentum'"),
    ],
)
def test_declarations_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        register_state(Velocity, **fields)


@pytest.mark.parametrize("scale", [2.0, 0.02, -0.1])
def test_what_is_no_copy_is_not_taken_for_one(scale, getkey):
    """Sums of snapshots, averages that began at zero, gradients."""
    layer = lru(getkey())
    other = jax.tree.map(lambda x: scale * x, layer)
    with pytest.raises(ValueError, match=r"must be a copy or an average of the parameters"):
        compress(layer, (optax.adam(1e-3).init(layer), other), policy=Ranks(5))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda ema, adam: ema,
        lambda ema, adam: (adam, ema),
        lambda ema, adam: {"optimizer": adam, "average": ema},
        lambda ema, adam: [ema],
    ],
)
def test_an_ema_that_may_be_of_parameters_is_refused(wrap, getkey, registered):
    layer = lru(getkey())
    average, ema = optax.ema(0.999).update(layer, optax.ema(0.999).init(layer))
    state = wrap(ema, optax.adam(1e-3).init(layer))
    with pytest.raises(ValueError, match="EmaState stands alone or beside a whole optimizer"):
        compress(layer, state, policy=Ranks(5))
    small, (_, after) = compress(layer, (optax.adam(1e-3).init(layer), average), policy=Ranks(5))
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(small), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    register_state(optax.EmaState, count="scalar", ema="gradient")
    compress(layer, state, policy=Ranks(5))


# ------------------------------------------------------------------------- nothing is found


@pytest.mark.parametrize("moments", ["transport", "reset", "slice"])
def test_states_in_which_no_layer_is_found_are_refused(moments, getkey):
    layer = lru(getkey())
    how = {"policy": Ranks(5), "moments": moments}
    with pytest.raises(ValueError, match="got one flat array"):
        compress(layer, optax.flatten(optax.adam(1e-3)).init(layer), **how)
    with pytest.raises(ValueError, match="a state with none of them"):
        compress(layer, optax.adam(1e-3).init(eqx.nn.Linear(2, 2, key=getkey())), **how)
    with pytest.raises(ValueError, match="has no S5 layer, got one in"):
        compress(layer, optax.adam(1e-3).init(S5.init(H, N, key=getkey())), **how)
    for other in (object(), 3, "adam", np.zeros(())):
        with pytest.raises(ValueError, match="opt_state must be the state of an optimizer"):
            compress(layer, other, **how)


def test_states_without_the_parameters_are_as_they_were(getkey):
    layer = lru(getkey())
    schedule = optax.scale_by_schedule(optax.constant_schedule(1.0))
    for optimizer in (optax.sgd(1e-3), optax.chain(optax.clip(1.0), schedule)):
        state = optimizer.init(layer)
        assert compress(layer, state, policy=Ranks(5))[1] is state
    assert compress(layer, None, policy=Ranks(5))[1] is None


def test_layers_that_are_masked_out_are_not_missed(getkey):
    model = {"layer": lru(getkey()), "head": eqx.nn.Linear(2, 2, key=getkey())}
    state = optax.masked(optax.adam(1e-3), {"layer": False, "head": True}).init(model)
    small, after = compress(model, state, policy=Ranks(5))
    assert small["layer"].d_state == 5
    assert jax.tree.structure(after) == jax.tree.structure(state)
