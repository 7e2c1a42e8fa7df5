"""The selective scan against its definition, sample by sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import selective_scan
from zoo.recurrence.selective import selective_step

NAMES = ("x", "dt", "A", "B", "C", "h0")


def oracle(x, dt, A, B, C, h0):
    def step(h, inputs):
        x, dt, B, C = inputs
        h = jnp.exp(dt[:, None] * A) * h + dt[:, None] * B * x[:, None]
        return h, jnp.sum(C * h, axis=1)

    h, y = jax.lax.scan(step, h0, (x, dt, B, C))
    return y, h


def problem(L, d, N, dtype=np.float32, batch=()):
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(*batch, L, d)).astype(dtype),
        "dt": np.exp(rng.uniform(np.log(1e-3), np.log(2), (*batch, L, d))).astype(dtype),
        "A": -np.exp(rng.uniform(-1, 3, (d, N))).astype(dtype),
        "B": rng.normal(size=(*batch, L, N)).astype(dtype),
        "C": rng.normal(size=(*batch, L, N)).astype(dtype),
        "h0": rng.normal(size=(*batch, d, N)).astype(dtype),
    }


def gradients(function, arguments):
    y, h = function(*arguments)
    rng = np.random.default_rng(1)
    weights = [jnp.asarray(rng.normal(size=a.shape), a.dtype) for a in (y, h)]

    def loss(*arguments):
        y, h = function(*arguments)
        return jnp.sum(weights[0] * y) + jnp.sum(weights[1] * h)

    return jax.grad(loss, argnums=tuple(range(6)))(*arguments)


@pytest.mark.parametrize(
    ("L", "cached", "on_gpu"),
    [
        (1, 2**15, None),
        (37, 2**15, None),
        (96, 2**15, None),
        (37, 12, None),
        (37, 2**15, 1),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_values_and_gradients_are_those_of_the_definition(
    L, cached, on_gpu, precision, kernel, request, monkeypatch
):
    monkeypatch.setattr("zoo.recurrence.selective.CACHED", cached)
    monkeypatch.setattr("zoo.recurrence.selective.VECTOR", 1)
    if on_gpu is not None:
        monkeypatch.setattr("zoo.recurrence.selective.on_cpu", lambda: False)
        monkeypatch.setattr("zoo.recurrence.selective.ON_GPU", on_gpu)
    if precision == "float64":
        request.getfixturevalue("x64")
    tolerance = {"float32": 2e-5, "float64": 1e-12}[precision]
    given = problem(L, 5, 7, precision, batch=(4,))
    axes = [None if name == "A" else 0 for name in NAMES]
    ours, theirs = (jax.jit(jax.vmap(f, in_axes=axes)) for f in (selective_scan, oracle))
    arguments = [jnp.asarray(given[name]) for name in NAMES]
    for a, b in zip(ours(*arguments), theirs(*arguments), strict=True):
        assert a.dtype == precision
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())
    found, expected = (jax.jit(lambda *a, f=f: gradients(f, a))(*arguments) for f in (ours, theirs))
    for name, a, b in zip(NAMES, found, expected, strict=True):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def test_one_sequence_is_a_row_of_the_batch():
    given = problem(37, 5, 7, batch=(3,))
    A = jnp.asarray(given.pop("A"))
    batch = jax.vmap(lambda x, dt, B, C, h0: selective_scan(x, dt, A, B, C, h0))
    y, h = batch(*(jnp.asarray(a) for a in given.values()))
    one = [jnp.asarray(a[1]) for a in given.values()]
    y1, h1 = selective_scan(one[0], one[1], A, *one[2:])
    np.testing.assert_allclose(y[1], y1, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(h[1], h1, rtol=1e-5, atol=1e-5)


def test_a_step_is_a_sample_of_the_scan():
    given = {name: jnp.asarray(a) for name, a in problem(1, 5, 7).items()}
    y, h = selective_scan(*(given[name] for name in NAMES))
    row = {name: given[name] if name in ("A", "h0") else given[name][0] for name in NAMES}
    y1, h1 = selective_step(*(row[name] for name in NAMES))
    np.testing.assert_allclose(y[0], y1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h, h1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("models", [1, 2])
def test_gradients_of_many_channels_of_every_sequence_and_model(kernel, models):
    """More than one block of channels, the last one not full, of few sequences."""
    given = problem(19, 150, 3, batch=(2,))
    A = jnp.stack([jnp.asarray(given["A"]) * (1 + i) for i in range(models)])
    axes = [None if name == "A" else 0 for name in NAMES]

    def every(function):
        each = jax.vmap(lambda *a: gradients(function, a), in_axes=axes)
        model = lambda A: each(*(A if name == "A" else given[name] for name in NAMES))  # noqa: E731
        return jax.jit(jax.vmap(model))(A)

    for a, b in zip(every(selective_scan), every(oracle), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5 * np.abs(b).max())


def test_its_gradient_can_be_differentiated_forwards(kernel):
    given = [jnp.asarray(a) for a in problem(21, 5, 4).values()]
    directions = [jnp.ones_like(a) for a in given]

    def of_gradient(function):
        gradient = lambda *a: gradients(function, a)  # noqa: E731
        return jax.jit(lambda *a: jax.jvp(gradient, a, tuple(directions))[1])(*given)

    for a, b in zip(of_gradient(selective_scan), of_gradient(oracle), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_decays_of_any_size(kernel):
    """From none at all, which leaves the state as it is, to more than single precision can hold."""
    rates = jnp.asarray([[0.0, -1e-8, -0.5, -20.0, -86.0, -90.0, -1e4, -1e30]])
    h0, nothing = jnp.ones((1, 8)), jnp.zeros((1, 8))
    y, h = selective_scan(jnp.zeros((1, 1)), jnp.ones((1, 1)), rates, nothing, nothing + 1, h0)
    np.testing.assert_allclose(h, jnp.exp(rates), rtol=3e-7, atol=1e-37)
    assert h[0, 0] == 1
    np.testing.assert_allclose(y[0, 0], jnp.sum(jnp.exp(rates)), rtol=1e-6)
    broken = rates.at[0, 2].set(jnp.nan)
    _, h = selective_scan(jnp.zeros((1, 1)), jnp.ones((1, 1)), broken, nothing, nothing, h0)
    assert jnp.isnan(h[0, 2])


def test_memory_does_not_hold_the_states():
    """2 MiB of inputs, 128 MiB of states: forward and backward stay far below the latter."""
    given = problem(1024, 64, 32, batch=(16,))
    axes = [None if name == "A" else 0 for name in NAMES]
    run = jax.vmap(selective_scan, in_axes=axes)
    shapes = [jax.ShapeDtypeStruct(given[name].shape, np.float32) for name in NAMES]
    compiled = jax.jit(lambda *a: gradients(run, a)).lower(*shapes).compile()
    states = 4 * 16 * 1024 * 64 * 32
    assert compiled.memory_analysis().temp_size_in_bytes < states / 2


def test_on_a_gpu_states_are_computed_by_the_kernel(monkeypatch, lowers_for_cuda):
    monkeypatch.setattr("zoo.recurrence.selective.on_cpu", lambda: False)
    given = problem(40, 6, 5)

    def loss(x, dt, A, B, C, h0):
        y, h = selective_scan(x, dt, A, B, C, h0)
        return jnp.sum(y**2) + jnp.sum(h)

    gradient = jax.jit(jax.grad(loss, argnums=tuple(range(6))))
    assert "xla.gpu.triton" in lowers_for_cuda(gradient, *given.values())
