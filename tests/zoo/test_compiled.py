"""The compiled kernel of CPUs. That models get the same from loops is in `test_recurrence`."""

import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LAYERS
from zoo.recurrence import compiled as kernels
from zoo.recurrence.choice import recurrence_form
from zoo.recurrence.compiled import (
    adjoint_on_cpu,
    lti_gradients,
    lti_outputs,
    native,
    states_on_cpu,
)
from zoo.recurrence.linear import linear_recurrence

KERNEL = native("float32")
compiled = pytest.mark.skipif(not KERNEL, reason="installed without a C++ compiler")


@pytest.mark.skipif(not (shutil.which("c++") and shutil.which("cc")), reason="no compiler")
def test_a_compiler_makes_a_kernel():
    assert KERNEL


def test_a_jax_that_does_not_take_the_kernel_has_the_loop(monkeypatch):
    def refuse(*arguments, **settings):
        raise jax.errors.JaxRuntimeError("the handler's API version is incompatible")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    assert not kernels.compiled.__wrapped__()


def by_a_loop(a, b, x, order, reverse, split):
    """The definition, with gradients by autodiff."""
    a = jnp.broadcast_to(a, b.shape)
    if split:
        a, b = (jax.lax.complex(each[:, :, 0], each[:, :, 1]) for each in (a, b))
        x = jax.lax.complex(x[:, 0], x[:, 1])

    def step(x, each):
        after = each[0] * x + each[1]
        return after, after if order == "after" else x

    last, states = jax.lax.scan(
        step, x, (jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)), reverse=reverse
    )
    states = jnp.swapaxes(states, 0, 1)
    if split:
        states, last = (jnp.stack([z.real, z.imag], axis=-2) for z in (states, last))
    return states, last


@compiled
@pytest.mark.parametrize("kind", ["float32", "float64", "complex64", "complex128", "split"])
@pytest.mark.parametrize("shared", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize(
    ("shape", "reverse"),
    [((3, 7, 5), False), ((2, 9, 2100), True), ((4, 50, 300), True), ((1, 1, 1), False)],
)
def test_states_and_cotangents_equal_the_definition(x64, kind, shared, order, shape, reverse):
    rng = np.random.default_rng(0)
    batch, L, n = shape
    split, dtype = kind == "split", "float64" if kind == "split" else kind
    each = (2, n) if split else (n,)

    def draw(*shape):
        x = rng.uniform(-0.6, 0.6, shape)
        return jnp.asarray(x + 1j * rng.uniform(-0.6, 0.6, shape) if "x" in dtype else x, dtype)

    a = draw(1, 1, *each) if shared else draw(batch, L, *each)
    b, x = draw(batch, L, *each), draw(batch, *each)
    form = {"reverse": reverse, "split": split}

    @jax.jit
    def both(a, b, x, dstates, dlast):
        (states, last), vjp = jax.vjp(lambda *z: by_a_loop(*z, order, **form), a, b, x)
        ours = states_on_cpu(a, b, x, order, **form)
        da, db, dx = adjoint_on_cpu(a, ours[0], x, dstates, dlast, order, **form)
        da = jnp.sum(da, axis=0, keepdims=True) if shared else da
        return (*ours, da, db, dx), (states, last, *vjp((dstates, dlast)))

    ours, theirs = both(a, b, x, draw(batch, L, *each), draw(batch, *each))
    tolerance = 1e-5 if dtype in ("float32", "complex64") else 1e-12
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * np.abs(other).max())


def in_one_piece(lam, B, C, u, x0):
    """Outputs and last states by their definition, complex numbers by parts."""
    lam, B, C = (jax.lax.complex(*each) for each in (lam, B, C))

    def step(x, u):
        x = lam * x + u @ B.T
        return x, jnp.real(x @ C.T)

    last, y = jax.lax.scan(step, jax.lax.complex(x0[:, 0], x0[:, 1]), jnp.swapaxes(u, 0, 1))
    return jnp.swapaxes(y, 0, 1), jnp.stack([last.real, last.imag], axis=1)


@compiled
@pytest.mark.parametrize("m", [1, 8, 9, 40])
@pytest.mark.parametrize("p", [3, 16, 50])
@pytest.mark.parametrize(
    ("batch", "L", "n", "chunk"),
    [(1, 1, 1, 1), (3, 21, 16, 8), (5, 640, 35, 32), (1, 1000, 70, 64)],
)
def test_a_whole_system_and_its_gradients_equal_the_definition(m, p, batch, L, n, chunk):
    """The larger ones are shared out among cores, by sequences and by states."""
    equal_the_definition(m, p, batch, L, n, chunk, "float32", 5e-6)


@compiled
@pytest.mark.parametrize(("m", "p"), [(1, 3), (4, 16), (9, 50)])
@pytest.mark.parametrize(
    ("batch", "L", "n", "chunk"), [(1, 1, 1, 1), (3, 21, 16, 8), (5, 640, 35, 32)]
)
def test_it_does_in_double_precision(x64, m, p, batch, L, n, chunk):
    equal_the_definition(m, p, batch, L, n, chunk, "float64", 1e-13)


def equal_the_definition(m, p, batch, L, n, chunk, dtype, tolerance):
    rng = np.random.default_rng(m + p + n)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
    lam = jnp.asarray(rng.uniform(-0.6, 0.6, (2, n)), dtype)
    arguments = lam, draw(2, n, m), draw(2, p, n), draw(batch, L, m), draw(batch, 2, n)

    @jax.jit
    def both(arguments, dy, dlast):
        expected, vjp = jax.vjp(in_one_piece, *arguments)
        y, last, before = lti_outputs(*arguments, chunk=chunk)
        gradients = lti_gradients(*arguments[:4], before, dy, dlast, chunk=chunk)
        return (y, last, *gradients), (*expected, *vjp((dy, dlast)))

    ours, theirs = both(arguments, draw(batch, L, p), draw(batch, 2, n))
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            mine, other, rtol=0, atol=tolerance * max(np.abs(other).max(), 1)
        )


@compiled
def test_several_models_go_through_the_kernel_one_after_the_other():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 3, jnp.float32)  # noqa: E731
    models = draw(3, 2, 20), draw(3, 2, 20, 4), draw(3, 2, 5, 20)
    u, x0 = draw(6, 9, 4), draw(6, 2, 20)

    def one(*model):
        return lti_outputs(*model, u, x0, chunk=4)[:2]

    ours = jax.jit(jax.vmap(one))(*models)
    theirs = jax.vmap(lambda *model: in_one_piece(*model, u, x0))(*models)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=2e-6 * np.abs(other).max())


@compiled
@pytest.mark.parametrize(
    ("name", "kernel"),
    [("lru", "lti"), ("mamba", "selective"), ("gated_deltanet", "attention")],
)
def test_layers_of_several_models_have_the_kernel(name, kernel):
    keys = jax.random.split(jax.random.key(0), 3)
    make = LAYERS[name](d_state=4).build
    models = eqx.filter_vmap(lambda key: make(8, key=key))(keys)
    u = jax.random.normal(jax.random.key(1), (2, 9, 8))
    arrays, static = eqx.partition(models, eqx.is_array)

    def outputs(arrays):
        return jax.vmap(eqx.combine(arrays, static))(u)

    with recurrence_form("fused", 64):
        program = jax.jit(jax.vmap(outputs)).lower(arrays)
        assert f"zoo_{kernel}_outputs" in program.as_text()
        y = program.compile()(arrays)
    one = jax.tree.map(lambda x: x[1], arrays)
    np.testing.assert_allclose(y[1], outputs(one), atol=1e-5)


@compiled
def test_many_at_once_neither_wait_for_nor_disturb_one_another():
    """Calls from several programs share the cores of one pool."""
    rng = np.random.default_rng(1)
    a, b = jnp.asarray(rng.uniform(0, 1, (2, 4, 200, 300)), jnp.float32)
    one = jax.jit(jax.vmap(linear_recurrence))
    expected = one(a, b)
    for states in [one(a, b) for _ in range(40)]:
        np.testing.assert_array_equal(states, expected)


@compiled
def test_other_kinds_of_numbers_have_the_loop():
    a = jnp.full((5, 3), 0.5, jnp.bfloat16)
    assert not native(a.dtype)
    np.testing.assert_allclose(
        np.asarray(linear_recurrence(a, a), float)[:, 0], 1 - 0.5 ** np.arange(1, 6)
    )
