import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.network.pointwise import GLU, Dropout, gelu


def test_gelu_and_its_derivative_are_jax_s(getkey):
    x, weights = jax.random.normal(getkey(), (2, 9, 4))
    np.testing.assert_array_equal(gelu(x), jax.nn.gelu(x))
    ours, theirs = (
        jax.grad(lambda x, f=f: jnp.sum(weights * f(x)))(x) for f in (gelu, jax.nn.gelu)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_glu_is_the_gated_product(getkey):
    glu, x = GLU(4, key=getkey()), jax.random.normal(getkey(), (9, 4))

    def plain(glu, x):
        return jax.vmap(glu.linear)(x) * jax.nn.sigmoid(jax.vmap(glu.gate)(x))

    def both(f):
        gradient = eqx.filter_grad(lambda arguments: jnp.sum(jnp.sin(f(*arguments))))
        return f(glu, x), gradient((glu, x))

    pairs = zip(*(jax.tree.leaves(both(f)) for f in (lambda glu, x: glu(x), plain)), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("apart_by", ["split", "seed", "draw"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_right_share_and_the_mean(rate, apart_by, getkey):
    x, key = jnp.ones((200, 50)), getkey()
    draws = {
        "split": [(each, 0) for each in jax.random.split(key, 64)],
        "seed": [(jax.random.key(seed), 0) for seed in range(64)],
        "draw": [(key, draw) for draw in range(64)],
    }[apart_by]
    y = np.stack([Dropout(rate)(x, key=each, draw=draw) for each, draw in draws])
    assert set(np.unique(y)) == {0, np.float32(1 / (1 - rate))}
    kept = y > 0
    n = kept.size
    sigma = np.sqrt(rate * (1 - rate))
    assert abs(kept.mean() - (1 - rate)) < 4 * sigma / np.sqrt(n)
    # no correlation between neighbours in time, channel and key
    centred = (kept - kept.mean()) / sigma
    for axis in range(3):
        for lag in (1, 2, 16):
            size = min(kept.shape[axis], 64)
            a, b = (centred.take(np.arange(k, size - lag + k), axis) for k in (0, lag))
            assert abs((a * b).mean()) < 4 / np.sqrt(a.size), (axis, lag)
    # no row, column or key that is kept more often than chance allows
    for axes in ((0, 1), (0, 2), (1, 2)):
        means = centred.mean(axis=axes) * np.sqrt(n / centred.mean(axis=axes).size)
        assert np.abs(means).max() < 5
        assert 0.5 < means.var() < 2


def test_dropout_depends_on_the_key_alone(getkey):
    x, key, other = jnp.ones((50, 8)), getkey(), getkey()
    dropout = Dropout(0.5)
    first = dropout(x, key=key)
    assert jnp.array_equal(first, jax.jit(dropout)(x, key=key))
    assert not jnp.array_equal(first, dropout(x, key=other))


def test_dropout_is_off_at_inference_and_needs_a_key_in_training():
    x = jnp.ones((5, 2))
    assert eqx.nn.inference_mode(Dropout(0.5))(x) is x
    assert Dropout(0.0)(x) is x
    with pytest.raises(ValueError, match=r"`key` must be a random key, .*got None"):
        Dropout(0.5)(x)
    with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\), got 1.0"):
        Dropout(1.0)


def test_their_gradients_can_be_differentiated_forwards(getkey):
    glu, x, v = GLU(4, key=getkey()), *jax.random.normal(getkey(), (2, 9, 4))

    def plain(x):
        return jax.vmap(glu.linear)(x) * jax.nn.sigmoid(jax.vmap(glu.gate)(x))

    for ours, theirs in ((gelu, jax.nn.gelu), (glu, plain)):
        pairs = [
            jax.jvp(jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x)))), (x,), (v,))
            for f in (ours, theirs)
        ]
        np.testing.assert_allclose(*(np.stack(pair) for pair in pairs), atol=1e-5)
