"""Linear maps: the plain product, in a form that XLA makes one product of in both directions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.affine import Linear, affine


def plain(linear, x):
    return jnp.einsum("nm,...m->...n", linear.weight, x) + linear.bias


WIDE = 33


@pytest.fixture(params=[3, WIDE])
def linear(request, getkey):
    return Linear.init(request.param, WIDE, key=getkey())


def loss(function):
    """Of all entries, each with a weight of its own."""

    def of(linear, x):
        y = function(linear, x)
        return jnp.sum(y * jnp.sin(jnp.arange(y.size)).reshape(y.shape))

    return of


def assert_close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (7,), (2, 7), (0,)])
def test_values_and_gradients_with_any_leading_axes(linear, shape, getkey):
    x = jax.random.normal(getkey(), (*shape, linear.weight.shape[1]))
    assert affine(linear, x).shape == (*shape, WIDE)
    ours, theirs = (jax.value_and_grad(loss(f), (0, 1))(linear, x) for f in (affine, plain))
    assert_close(ours, theirs)


def mapped(function):
    return jax.vmap(function, in_axes=(None, 0))


def test_a_batch_is_one_product_of_matrices_also_backwards(getkey):
    linear = Linear.init(WIDE, WIDE, key=getkey())
    x = jax.random.normal(getkey(), (4, 7, WIDE))
    gradient = jax.grad(loss(mapped(affine)), (0, 1))
    assert_close(gradient(linear, x), jax.grad(loss(mapped(plain)), (0, 1))(linear, x))
    products = [
        e for e in jax.make_jaxpr(gradient)(linear, x).eqns if e.primitive.name == "dot_general"
    ]
    assert len(products) == 3  # forward, for the weight and for x
    assert all(v.aval.ndim == 2 for e in products for v in e.invars)


def test_many_maps_at_once(getkey):
    keys = jax.random.split(getkey(), 6)
    linears = eqx.filter_vmap(lambda key: Linear.init(WIDE, WIDE, key=key))(keys)
    x = jax.random.normal(getkey(), (6, 7, WIDE))
    ours, theirs = (
        jax.vmap(jax.value_and_grad(loss(f), (0, 1)))(linears, x) for f in (affine, plain)
    )
    assert_close(ours, theirs)
    shared = jax.vmap(affine, in_axes=(0, None))(linears, x[0])
    assert_close(shared, jax.vmap(plain, in_axes=(0, None))(linears, x[0]))


def test_second_derivatives(linear, getkey):
    x = jax.random.normal(getkey(), (2, linear.weight.shape[1]))

    def squares(f):
        return lambda x: jnp.mean(f(linear, x) ** 3)

    assert_close(jax.hessian(squares(affine))(x), jax.hessian(squares(plain))(x))
