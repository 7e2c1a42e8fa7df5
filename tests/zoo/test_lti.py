import jax.numpy as jnp
import numpy as np
import pytest

from zoo import DiagonalLTI, lti_apply


def random_lti(rng, n=6, m=3, p=3, full_D=False):
    log_lam = -rng.uniform(0.01, 1, n) + 1j * rng.uniform(-np.pi, np.pi, n)
    B = rng.normal(size=(n, m)) + 1j * rng.normal(size=(n, m))
    C = rng.normal(size=(p, n)) + 1j * rng.normal(size=(p, n))
    return DiagonalLTI(log_lam, B, C, rng.normal(size=(p, m) if full_D else p))


@pytest.mark.parametrize(("m", "p", "full_D"), [(3, 3, False), (3, 3, True), (2, 4, True)])
def test_frequency_response_is_the_transform_of_the_impulse_response(x64, m, p, full_D):
    lti = random_lti(np.random.default_rng(0), m=m, p=p, full_D=full_D)
    w = np.array([0.0, 0.3, 2.0, -1.0, np.pi])
    steps = 4000
    impulses = np.zeros((m, steps, m))
    impulses[np.arange(m), 0, np.arange(m)] = 1
    response = np.stack([lti.simulate(u) for u in impulses], axis=-1)
    expected = np.einsum("ft,tpm->fpm", np.exp(-1j * w[:, None] * np.arange(steps)), response)
    np.testing.assert_allclose(lti.frequency_response(w), expected, atol=1e-10)


def test_simulate_follows_the_definition(x64):
    rng = np.random.default_rng(1)
    lti = random_lti(rng)
    u, x = rng.normal(size=(5, 3)), rng.normal(size=6) + 0j
    y = lti.simulate(u, x)
    for k in range(5):
        x = np.exp(lti.log_lam) * x + lti.B @ u[k]
        np.testing.assert_allclose(y[k], np.real(lti.C @ x) + lti.D * u[k], rtol=1e-12)


def test_spectral_radius_keeps_digits_next_to_the_circle():
    lti = DiagonalLTI(
        np.array([-1e-6 + 1j, -0.5 + 0j]), np.ones((2, 1)) + 0j, np.ones((1, 2)) + 0j, np.zeros(1)
    )
    assert float(lti.spectral_radius()) < 1
    assert lti.d_state == 2


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3,), (2, 1), (1, 3), (1,)), "`B` must have 3 rows|parameter 'B'"),
        (((3,), (3, 1), (1, 2), (1,)), "`C` must have 3 columns|parameter 'C'"),
        (((3,), (3, 1), (2, 3), (2,)), "`D` must have the shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    log_lam, B, C = (jnp.zeros(shape, complex) for shape in shapes[:3])
    with pytest.raises(Exception, match=message):
        DiagonalLTI(log_lam, B, C, jnp.zeros(shapes[3]))


def test_simulate_promotes_as_the_recurrence_does(x64):
    lti = random_lti(np.random.default_rng(2))
    single = DiagonalLTI(
        *(x.astype(np.complex64) for x in (lti.log_lam, lti.B, lti.C)), lti.D.astype(np.float32)
    )
    u = np.random.default_rng(3).normal(size=(20, 3))
    for system, inputs, x0 in [
        (single, u, None),  # inputs wider than the system
        (DiagonalLTI(single.log_lam, lti.B, lti.C, lti.D), u.astype(np.float32), None),
        (single, u.astype(np.float32), np.ones(6) + 0j),
    ]:
        y = system.simulate(inputs, x0)
        expected, _ = lti_apply(system.log_lam, system.B, system.C, inputs, x0)
        assert y.dtype == expected.dtype == np.float64
        np.testing.assert_allclose(y, expected + system.D * inputs, atol=1e-10)
