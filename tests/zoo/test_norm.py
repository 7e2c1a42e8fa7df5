"""BatchNorm against Equinox's own, values, state and gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.network.norm import BATCH_AXIS, BatchNorm


def batched(norm, x, state):
    return jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name=BATCH_AXIS)(x, state)


@pytest.fixture
def norms(getkey):
    ours, our_state = eqx.nn.make_with_state(BatchNorm)(3)
    theirs, their_state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        3, BATCH_AXIS, mode="batch", momentum=0.9
    )
    weight, bias = jax.random.normal(getkey(), (2, 3))
    parameters = lambda norm: (norm.weight, norm.bias)  # noqa: E731
    ours, theirs = (eqx.tree_at(parameters, norm, (weight, bias)) for norm in (ours, theirs))
    return (ours, our_state), (lambda x, state: _transposed(theirs, x, state), their_state), theirs


def _transposed(norm, x, state):
    y, state = norm(x.T, state)
    return y.T, state


def test_values_and_running_statistics_are_equinox_s(norms, getkey):
    (ours, our_state), (theirs, their_state), _ = norms
    for _ in range(3):
        x = 2 + 3 * jax.random.normal(getkey(), (4, 7, 3))
        our_y, our_state = batched(ours, x, our_state)
        their_y, their_state = batched(theirs, x, their_state)
        np.testing.assert_allclose(our_y, their_y, atol=1e-5)
    ours, original = (eqx.nn.inference_mode(norm) for norm in (ours, norms[2]))
    evaluated, same = batched(ours, x, our_state)
    expected, _ = batched(lambda x, s: _transposed(original, x, s), x, their_state)
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)
    assert all(
        jnp.array_equal(*pair)
        for pair in zip(*map(jax.tree.leaves, (same, our_state)), strict=True)
    )


def test_gradients_are_equinox_s(norms, getkey):
    (ours, our_state), (_, their_state), original = norms
    x, weights = 2 + jax.random.normal(getkey(), (2, 4, 7, 3))

    def gradients(norm, state, call):
        def loss(norm, x):
            y, _ = batched(lambda x, s: call(norm, x, s), x, state)
            return jnp.sum(weights * jnp.sin(y))

        dnorm, dx = eqx.filter_grad(lambda both: loss(*both))((norm, x))
        return dnorm.weight, dnorm.bias, dx

    pairs = zip(
        gradients(ours, our_state, lambda norm, x, s: norm(x, s)),
        gradients(original, their_state, _transposed),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=2e-5)
