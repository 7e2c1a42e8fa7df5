"""Every layer under what people do with it: half precision, nothing at all, `eqx.nn.Sequential`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import (
    LAYERS,
    LRU,
    S4D,
    S5,
    Bidirectional,
    LinOSS,
    Mamba,
    Mamba2,
    lti_apply,
    selective_scan,
)
from zoo.layers.base import AbstractLinearSSM

MAKERS = {
    "lru": lambda key: LRU.init(4, 6, key=key),
    "s5": lambda key: S5.init(4, 6, key=key),
    "s5 bilinear": lambda key: S5.init(4, 6, key=key, discretization="bilinear"),
    "s5 full": lambda key: S5.init(4, 6, key=key, conjugate_pairs=False, clip_eigenvalues=True),
    "s4d": lambda key: S4D.init(4, 6, key=key),
    "linoss": lambda key: LinOSS.init(4, 6, key=key),
    "d_linoss": lambda key: LinOSS.init_damped(4, 6, key=key),
    "mamba": lambda key: Mamba.init(4, 3, key=key),
    "mamba tied": lambda key: Mamba.init(4, 3, key=key, tied=True),
    "mamba2": lambda key: Mamba2.init(4, 3, key=key, headdim=4),
    "gla": lambda key: LAYERS["gla"](d_state=3).build(4, key=key),
    "retnet": lambda key: LAYERS["retnet"](d_state=3, d_conv=4, maps=True).build(4, key=key),
    "deltanet": lambda key: LAYERS["deltanet"](d_state=3, maps=True).build(4, key=key),
    "gated deltanet": lambda key: LAYERS["gated_deltanet"](d_state=3).build(4, key=key),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
QUICK = ("lru", "s5", "mamba", "gated deltanet")
SOME = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, make in MAKERS.items()
    ],
)
HALF = pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)]
)


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)


@SOME
@HALF
def test_half_precision_is_single_precision_of_rounded_parameters(make, dtype, getkey):
    half = cast(make(getkey()), dtype)
    u = jax.random.normal(getkey(), (12, 4)).astype(dtype)
    exact = cast(half, jnp.float32)(u.astype(jnp.float32))
    y = eqx.filter_jit(half)(u)
    assert y.dtype == dtype
    near = {"rtol": 0.05, "atol": 0.05 * float(jnp.abs(exact).max())}
    np.testing.assert_allclose(y.astype(jnp.float32), exact, **near)
    carry, again = half.run(half.init_state(), u)
    _, y_t = half.step(carry, u[0])
    assert again.dtype == y_t.dtype == dtype
    np.testing.assert_allclose(again.astype(jnp.float32), exact, **near)
    grads = eqx.filter_grad(lambda m: jnp.sum(m(u).astype(jnp.float32) ** 2))(half)
    for leaf in jax.tree.leaves(eqx.filter(grads, eqx.is_inexact_array)):
        assert leaf.dtype == dtype
        assert jnp.all(jnp.isfinite(leaf))


@ALL
@HALF
def test_half_precision_comes_back_from_a_system(make, dtype, getkey):
    layer = cast(make(getkey()), dtype)
    if not isinstance(layer, AbstractLinearSSM):
        pytest.skip("follows its input")
    again = layer.from_lti(layer.to_lti())
    leaves = (jax.tree.leaves(eqx.filter(x, eqx.is_inexact_array)) for x in (again, layer))
    for ours, theirs in zip(*leaves, strict=True):
        assert ours.dtype == theirs.dtype == dtype


@ALL
def test_no_samples_change_nothing(make, getkey):
    layer = make(getkey())
    nothing, u = jnp.zeros((0, 4)), jax.random.normal(getkey(), (5, 4))
    assert layer(nothing).shape == (0, 4)
    carry, _ = layer.run(layer.init_state(), u)
    after, y = layer.run(carry, nothing)
    assert y.shape == (0, 4)
    assert eqx.tree_equal(after, carry)
    assert jax.vmap(layer)(jnp.zeros((3, 0, 4))).shape == (3, 0, 4)


@ALL
def test_a_batch_of_none_has_no_outputs(make, getkey):
    layer = make(getkey())
    assert jax.vmap(layer)(jnp.zeros((0, 5, 4))).shape == (0, 5, 4)
    grads = eqx.filter_grad(lambda m: jnp.sum(jax.vmap(m)(jnp.zeros((0, 5, 4)))))(layer)
    assert all(jnp.all(x == 0) for x in jax.tree.leaves(grads))


def test_recurrences_of_no_samples():
    lam, B = jnp.full(3, -0.1 + 0.1j), jnp.ones((3, 2), complex)
    y, x = lti_apply(lam, B, B.T, jnp.zeros((0, 2)), jnp.ones(3, complex))
    assert y.shape == (0, 2)
    assert jnp.all(x == 1)
    y, h = selective_scan(
        jnp.zeros((0, 4)),
        jnp.zeros((0, 4)),
        -jnp.ones((4, 3)),
        jnp.zeros((0, 3)),
        jnp.zeros((0, 3)),
    )
    assert y.shape == (0, 4)
    assert jnp.all(h == 0)


@ALL
def test_a_key_is_accepted_and_ignored(make, getkey):
    layer = make(getkey())
    u = jax.random.normal(getkey(), (5, 4))
    y = eqx.nn.Sequential([layer, eqx.nn.Lambda(jnp.tanh)])(u, key=getkey())
    np.testing.assert_array_equal(y, jnp.tanh(layer(u)))
    both = Bidirectional(layer, layer)
    np.testing.assert_array_equal(both(u, key=getkey()), both(u))


@ALL
@pytest.mark.parametrize("length", [99, 6, 0, -1, True, jnp.asarray(6)])
def test_a_length_that_is_none_is_refused(make, length, getkey):
    layer = make(getkey())
    u = jnp.ones((5, 4))
    message = "`length` must be a whole number from 1 to the 5 samples given, got"
    with pytest.raises(ValueError, match=message):
        layer.run(layer.init_state(), u, length)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda u: layer.run(layer.init_state(), u, length))(u)
    for good in (5, 1, jnp.asarray(3)):
        layer.run(layer.init_state(), u, good)


@pytest.mark.parametrize("use", ["init_state", "step", "run"])
def test_both_directions_cannot_be_streamed(use, getkey):
    layer = LRU.init(4, 3, key=getkey())
    with pytest.raises(ValueError, match="Bidirectional layer cannot stream"):
        getattr(Bidirectional(layer, layer), use)()
