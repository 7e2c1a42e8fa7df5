"""Products of few rows, and single samples, by the kernels of CPUs: as they are defined."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.layers.matrix import Int8Matrix, OfStack
from zoo.recurrence import products as few
from zoo.recurrence.compiled import native
from zoo.recurrence.plain import plainly
from zoo.recurrence.products import products, stored_products
from zoo.recurrence.sample import sample

compiled = pytest.mark.skipif(not native("float32"), reason="installed without a C++ compiler")
RNG = np.random.default_rng(0)


@compiled
@pytest.mark.parametrize("rows", [1, 3, 4, 16, 33])
@pytest.mark.parametrize(("outputs", "inputs"), [(130, 127), (67, 300), (64, 256)])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_products_of_one_matrix_of_a_stack(rows, outputs, inputs, kind):
    if kind == "int8":
        values = RNG.integers(-127, 128, (3, outputs, inputs)).astype(np.int8)
        scale = jnp.asarray(RNG.uniform(0.5, 1, (3, outputs)), jnp.float32)
        dense = values * np.asarray(scale)[..., None]
        values = jnp.asarray(values)
    else:
        values = jnp.asarray(RNG.normal(size=(3, outputs, inputs)), kind)
        scale, dense = jnp.zeros(0), np.asarray(values, np.float32)
    x = RNG.normal(size=(rows, inputs)).astype(np.float32)
    for k in range(3):
        y = stored_products(jnp.asarray(k, jnp.int32), values, scale, x)
        wanted = x @ dense[k].T
        np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@compiled
def test_a_batch_is_one_product(monkeypatch):
    called = []
    kernel = few.few_products
    monkeypatch.setattr(few, "few_products", lambda *a: called.append(a[3].shape) or kernel(*a))
    weight = jnp.asarray(RNG.normal(size=(128, 130)), jnp.float32)
    x = jnp.asarray(RNG.normal(size=(5, 2, 130)), jnp.float32)
    y = jax.jit(jax.vmap(lambda x: products(weight, x)))(x)
    np.testing.assert_allclose(y, x @ weight.T, rtol=1e-4, atol=1e-4)
    assert set(called) == {(10, 130)}
    many = jnp.ones((few.FEW + 1, 130))
    jax.eval_shape(lambda x: products(weight, x), many)
    with plainly():
        jax.eval_shape(lambda x: products(weight, x), x[0, :1])
    assert set(called) == {(10, 130)}


@compiled
def test_products_are_differentiated():
    weight = jnp.asarray(RNG.normal(size=(128, 130)), jnp.float32)
    x = jnp.asarray(RNG.normal(size=(4, 130)), jnp.float32)
    found = jax.grad(lambda w, x: jnp.sum(jnp.sin(products(w, x))), (0, 1))(weight, x)
    wanted = jax.grad(lambda w, x: jnp.sum(jnp.sin(x @ w.T)), (0, 1))(weight, x)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_matrix_of_a_stack_is_used_as_an_array_is():
    values = jnp.asarray(RNG.integers(-127, 128, (2, 5, 7)), jnp.int8)
    stack = Int8Matrix(values, jnp.asarray(RNG.uniform(1, 2, (2, 5)), jnp.float32))
    own = OfStack(stack, jnp.asarray(1, jnp.int32))
    dense = stack.dense()[1]
    assert own.shape == (5, 7)
    assert len(own) == 5
    assert own.dtype == jnp.float32
    np.testing.assert_allclose(own[jnp.asarray([3, 0])], dense[jnp.asarray([3, 0])])
    x = jnp.arange(7.0)
    np.testing.assert_allclose(own @ x, dense @ x, rtol=1e-5)
    np.testing.assert_allclose(stack[1] @ x, dense @ x, rtol=1e-5)


@compiled
@pytest.mark.parametrize("N", [1, 3, 8, 16, 33, 128])
@pytest.mark.parametrize(("heads", "each", "groups"), [(70, 1, 1), (6, 20, 2)])
@pytest.mark.parametrize("tied", [False, True])
def test_a_sample_equals_the_definition(N, heads, each, groups, tied):
    d, b = heads * each, 3
    A = jnp.asarray(-RNG.uniform(0.1, 3, (heads, 1 if tied else N)), jnp.float32)
    x, dt, B, C, h = (
        jnp.asarray(RNG.normal(size=(b, *shape)), jnp.float32)
        for shape in ((d,), (heads,), (groups, N), (groups, N), (d, N))
    )
    dt = jnp.abs(dt)
    y, after = jax.vmap(sample, (0, 0, None, 0, 0, 0))(x, dt, A, B, C, h)
    decay = np.repeat(np.exp(np.asarray(dt)[..., None] * np.asarray(A)), each, axis=1)
    B_, C_ = (np.repeat(np.asarray(a), d // groups, axis=1) for a in (B, C))
    drive = np.repeat(np.asarray(dt), each, axis=1) * np.asarray(x)
    wanted = decay * np.asarray(h) + drive[..., None] * B_
    np.testing.assert_allclose(after, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, np.sum(wanted * C_, axis=-1), rtol=1e-4, atol=1e-4)
    with plainly():
        plain = jax.vmap(sample, (0, 0, None, 0, 0, 0))(x, dt, A, B, C, h)
    np.testing.assert_allclose(plain[0], y, rtol=1e-4, atol=1e-4)
