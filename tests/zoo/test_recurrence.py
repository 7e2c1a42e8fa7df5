import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrence import (
    FEW_CHANNELS,
    MATMUL_CHUNK,
    SCAN_CHUNK,
    linear_recurrence,
    lti_apply,
    lti_step,
)

LENGTHS = [1, MATMUL_CHUNK, MATMUL_CHUNK + 1, SCAN_CHUNK, 2 * SCAN_CHUNK + 7]
FORMS = pytest.mark.parametrize("m", [2, FEW_CHANNELS + 1], ids=["matmul", "scan"])


def system(rng, m=2, n=4, p=3):
    log_lam = -rng.uniform(0.001, 0.5, n) + 1j * rng.uniform(-3, 3, n)
    B = rng.normal(size=(n, m)) + 1j * rng.normal(size=(n, m))
    C = rng.normal(size=(p, n)) + 1j * rng.normal(size=(p, n))
    x0 = rng.normal(size=n) + 1j * rng.normal(size=n)
    return [jnp.asarray(a) for a in (log_lam, B, C, x0)]


def sequential(log_lam, B, C, u, x):
    outputs = []
    for u_k in u:
        x, y = lti_step(log_lam, B, C, x, u_k)
        outputs.append(y)
    return jnp.stack(outputs), x


def associative(log_lam, B, C, u, x0):
    """What other packages do: all states at once, by `jax.lax.associative_scan`."""
    lam = jnp.broadcast_to(jnp.exp(log_lam), (len(u), len(log_lam)))
    b = (u @ B.T).at[0].add(jnp.exp(log_lam) * x0)
    combine = lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1])  # noqa: E731
    _, x = jax.lax.associative_scan(combine, (lam, b))
    return jnp.real(x @ C.T), x[-1]


@FORMS
@pytest.mark.parametrize("length", LENGTHS)
def test_lti_apply_equals_the_sequential_form(x64, length, m):
    rng = np.random.default_rng(length)
    *arrays, x0 = system(rng, m)
    u = jnp.asarray(rng.normal(size=(length, m)))
    y, x = lti_apply(*arrays, u, x0)
    expected_y, expected_x = associative(*arrays, u, x0)
    np.testing.assert_allclose(y, expected_y, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(x, expected_x, rtol=1e-10, atol=1e-11)
    if length < 10:
        np.testing.assert_allclose(y, sequential(*arrays, u, x0)[0], rtol=1e-12)


@FORMS
@pytest.mark.parametrize("length", [5, 2 * SCAN_CHUNK + 7])
def test_every_gradient_equals_the_sequential_form(x64, length, m):
    rng = np.random.default_rng(length)
    *arrays, x0 = system(rng, m)
    u = jnp.asarray(rng.normal(size=(length, m)))
    weights = jnp.asarray(rng.normal(size=(length, 3)))

    def gradients(form):
        def loss(*args):
            y, x = form(*args)
            return jnp.sum(weights * y**2) + jnp.real(jnp.vdot(x, x))

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))(*arrays, u, x0)

    for ours, theirs in zip(gradients(lti_apply), gradients(associative), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_linear_recurrence_with_constant_coefficients_is_the_lti(x64):
    rng = np.random.default_rng(3)
    log_lam, B, C, x0 = system(rng)
    u = jnp.asarray(rng.normal(size=(9, 2)))
    states = linear_recurrence(jnp.broadcast_to(jnp.exp(log_lam), (9, 4)), u @ B.T, x0)
    y, last = lti_apply(log_lam, B, C, u, x0)
    np.testing.assert_allclose(jnp.real(states @ C.T), y, rtol=1e-12)
    np.testing.assert_allclose(states[-1], last, rtol=1e-12)


def test_a_batch_is_a_vmap():
    rng = np.random.default_rng(4)
    *arrays, x0 = system(rng)
    u = jnp.asarray(rng.normal(size=(3, SCAN_CHUNK + 5, 2)), jnp.float32)
    batch, _ = jax.vmap(lambda u: lti_apply(*arrays, u, x0))(u)
    for one, y in zip(u, batch, strict=True):
        np.testing.assert_allclose(lti_apply(*arrays, one, x0)[0], y, rtol=1e-4, atol=1e-4)
