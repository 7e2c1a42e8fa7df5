import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from zoo import BATCH_AXIS, LRUConfig, MambaConfig, S5Config, classifier
from zoo.recurrence.choice import recurrence_form


def build(key, **settings):
    defaults = {
        "input_kind": "real",
        "input_size": 2,
        "classes": 3,
        "d_model": 6,
        "blocks": 2,
        "key": key,
    }
    config = settings.pop("layer", LRUConfig(d_state=4))
    arguments = defaults | settings
    return classifier(lambda k: config.build(arguments["d_model"], key=k), **arguments)


@eqx.filter_jit
def apply(model, x, state, keys=None):
    return jax.vmap(
        lambda x, state, key: model(x, state, key=key),
        in_axes=(0, None, None if keys is None else 0),
        out_axes=(0, None),
        axis_name=BATCH_AXIS,
    )(x, state, keys)


@pytest.mark.parametrize(
    "layer", [LRUConfig(d_state=4), S5Config(d_state=4), MambaConfig(d_state=4)]
)
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_logits_have_the_right_shape(layer, norm, bidirectional, getkey):
    model, state = build(getkey(), layer=layer, norm=norm, bidirectional=bidirectional)
    logits, _ = apply(model, jax.random.normal(getkey(), (5, 9, 2)), state)
    assert logits.shape == (5, 3)
    assert np.isfinite(logits).all()


def test_tokens_are_embedded(getkey):
    model, state = build(getkey(), input_kind="tokens", input_size=11)
    logits, _ = apply(model, jnp.arange(20).reshape(2, 10) % 11, state)
    assert logits.shape == (2, 3)


def test_batch_norm_uses_the_batch_in_training_and_running_statistics_afterwards(getkey):
    model, state = build(getkey())
    x = 3 + 2 * jax.random.normal(getkey(), (64, 9, 2))
    trained, _ = apply(model, x, state)
    for _ in range(100):
        _, state = apply(model, x, state)
    frozen = eqx.nn.inference_mode(model)
    evaluated, same_state = apply(frozen, x, state)
    np.testing.assert_allclose(evaluated, trained, atol=2e-3)
    alone, _ = apply(frozen, x[:1], state)
    np.testing.assert_allclose(alone[0], evaluated[0], rtol=1e-4, atol=1e-5)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(same_state), strict=True)
    )


def test_dropout_draws_from_the_key_and_only_in_training(getkey):
    model, state = build(getkey(), dropout=0.5)
    x = jax.random.normal(getkey(), (4, 9, 2))
    keys = jax.random.split(getkey(), 4)
    first, _ = apply(model, x, state, keys)
    again, _ = apply(model, x, state, keys)
    other, _ = apply(model, x, state, jax.random.split(getkey(), 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    frozen = eqx.nn.inference_mode(model)
    np.testing.assert_array_equal(apply(frozen, x, state, keys)[0], apply(frozen, x, state)[0])


def test_the_same_key_makes_the_same_model():
    one, _ = build(jax.random.key(0))
    two, _ = build(jax.random.key(0))
    assert eqx.tree_equal(one, two)


def test_the_work_of_a_training_step_grows_with_the_number_of_blocks_and_no_faster(getkey):
    """XLA copies sums into all that use them, unless `zoo.network.block` keeps it from that."""

    def sums_and_products(blocks):
        model, state = build(getkey(), blocks=blocks)
        params, static = eqx.partition(model, eqx.is_inexact_array)

        def loss(params, x):
            return jnp.sum(apply(eqx.combine(params, static), x, state)[0] ** 2)

        program = jax.jit(jax.grad(loss)).lower(params, jnp.ones((2, 16, 2))).compile()
        streams = r" = f32\[2,16,6\]\S* (?:add|subtract|multiply)\("
        return len(re.findall(streams, program.as_text()))

    one, two, three = (sums_and_products(blocks) for blocks in (1, 2, 3))
    assert 0 < three - two <= two - one


@pytest.mark.parametrize(
    ("layer", "norm", "form"),
    [
        (LRUConfig(d_state=3), "batch", ("matmul", 1)),
        pytest.param(LRUConfig(d_state=3), "rms", ("scan", 7), marks=pytest.mark.slow),
        pytest.param(S5Config(d_state=3), "layer", ("matmul", 8), marks=pytest.mark.slow),
        (MambaConfig(d_state=3), "rms", ("matmul", 1)),
    ],
    ids=["lru", "lru, sample by sample", "s5", "mamba"],
)
def test_products_with_the_hessian_are_differences_of_gradients(layer, norm, form, x64, getkey):
    model, state = build(getkey(), layer=layer, norm=norm, blocks=1)
    x = jax.random.normal(getkey(), (3, 20, 2))
    at, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params):
        run = jax.vmap(eqx.combine(params, static), (0, None), (0, None), axis_name=BATCH_AXIS)
        return jnp.mean(jnp.sin(run(x, state)[0]))

    keys = iter(jax.random.split(getkey(), 64))
    v = jax.tree.map(lambda a: jax.random.normal(next(keys), a.shape), at)
    with recurrence_form(*form):
        gradient = jax.jit(jax.grad(loss))
        _, product = jax.jit(lambda at: jax.jvp(jax.grad(loss), (at,), (v,)))(at)
        step = 1e-5
        after, before = (
            gradient(jax.tree.map(lambda a, b, s=s: a + s * b, at, v)) for s in (step, -step)
        )
    found, expected = (
        ravel_pytree(tree)[0]
        for tree in (product, jax.tree.map(lambda a, b: (a - b) / (2 * step), after, before))
    )
    assert found.dtype == jnp.float64
    assert jnp.linalg.norm(found - expected) < 1e-5 * jnp.linalg.norm(expected)
