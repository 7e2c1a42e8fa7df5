"""The selective layers: streaming, padding, state in and out, what they are built from."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import Mamba, Mamba2
from zoo.layers.affine import Linear

MAKERS = {
    "mamba": lambda key: Mamba.init(6, 5, key=key),
    "mamba tied, biased": lambda key: Mamba.init(
        6, 5, key=key, tied=True, bias=True, conv_bias=False, dt_rank=3, d_conv=3
    ),
    "mamba2": lambda key: Mamba2.init(6, 5, key=key, headdim=4, chunk_size=16),
    "mamba2 grouped, biased, limited": lambda key: Mamba2.init(
        6,
        5,
        key=key,
        headdim=3,
        n_groups=2,
        d_conv=3,
        chunk_size=20,
        bias=True,
        conv_bias=False,
        dt_limit=(0.01, 0.05),
    ),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@pytest.fixture
def u():
    return jax.random.normal(jax.random.key(7), (50, 6))


@eqx.filter_jit
def run(layer, carry, u, length=None):
    return layer.run(carry, u, length)


@eqx.filter_jit
def stream(layer, u):
    return jax.lax.scan(lambda carry, u_t: layer.step(carry, u_t), layer.init_state(), u)


def assert_close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@ALL
def test_streaming_and_pieces_equal_the_parallel_call(make, u, getkey):
    layer = make(getkey())
    y = eqx.filter_jit(layer)(u)
    carry, outputs = stream(layer, u)
    assert_close(outputs, y)
    after, first = run(layer, layer.init_state(), u[:25])
    after, second = run(layer, after, u[25:])
    assert_close(jnp.concatenate([first, second]), y)
    assert_close(after, carry)


@ALL
def test_padding_changes_nothing(make, u, getkey):
    layer = make(getkey())
    for length in (2, 25):  # fewer than the convolution reads, and the shape of another test
        carry, y = run(layer, layer.init_state(), u[:length])
        padded, z = run(layer, layer.init_state(), u.at[length:].set(99.0), jnp.asarray(length))
        assert_close(z[:length], y)
        assert_close(padded, carry)


@ALL
def test_the_first_state_has_its_gradient(make, u, getkey, x64):
    layer = jax.tree.map(lambda x: x.astype(float), make(getkey()))
    carry = jax.tree.map(lambda x: jax.random.normal(getkey(), x.shape, float), layer.init_state())
    weights = jax.random.normal(getkey(), u.shape, float)

    @jax.jit
    @jax.value_and_grad
    def loss(carry):
        after, y = layer.run(carry, u)
        return jnp.sum(weights * y) + sum(jnp.sum(x**2) for x in jax.tree.leaves(after))

    direction = jax.tree.map(lambda x: jax.random.normal(getkey(), x.shape, float), carry)
    at = lambda t: loss(jax.tree.map(lambda x, v: x + t * v, carry, direction))[0]  # noqa: E731
    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    grads = loss(carry)[1]
    expected = sum(
        jnp.sum(g * v)
        for g, v in zip(jax.tree.leaves(grads), jax.tree.leaves(direction), strict=True)
    )
    np.testing.assert_allclose(expected, slope, rtol=1e-6)


@ALL
def test_all_parameters_learn(make, u, getkey):
    layer = make(getkey())
    grads = eqx.filter_jit(eqx.filter_grad(lambda layer: jnp.sum(layer(u) ** 2)))(layer)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


def test_mamba_starts_as_published(getkey):
    layer = Mamba.init(64, 16, key=getkey(), dt_min=1e-2, dt_max=1e-1)
    assert (layer.d_model, layer.d_inner, layer.d_state, layer.dt_rank) == (64, 128, 16, 4)
    np.testing.assert_allclose(layer.A, np.tile(-np.arange(1.0, 17), (128, 1)), rtol=1e-6)
    steps = jax.nn.softplus(layer.dt_proj.bias)
    assert 0.99e-2 < steps.min() < 1.5e-2
    assert 0.8e-1 < steps.max() < 1.01e-1
    tied = Mamba.init(64, 16, key=getkey(), tied=True)
    np.testing.assert_allclose(tied.A, layer.A, rtol=1e-6)


@ALL
def test_half_precision_parameters_keep_states_in_single_precision(make, u, getkey):
    layer = make(getkey())
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), layer)
    carry, y = run(half, half.init_state(), u.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert carry.ssm.dtype == jnp.float32
    expected = eqx.filter_jit(layer)(u)
    assert np.abs(y - expected).max() < 0.05 * np.abs(expected).max()
    after, y_t = eqx.filter_eval_shape(half.step, carry, u[0].astype(jnp.bfloat16))
    assert (y_t.dtype, after.ssm.dtype) == (jnp.bfloat16, jnp.float32)


def test_a_bias_of_x_proj_is_refused(getkey):
    layer = Mamba.init(6, 5, key=getkey())
    biased = Linear(layer.x_proj.weight, jnp.ones(len(layer.x_proj.weight)))
    with pytest.raises(ValueError, match="`x_proj` must have no bias"):
        dataclasses.replace(layer, x_proj=biased)
