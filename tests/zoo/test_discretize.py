import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from zoo.layers.discretize import RULES

LAMBDA = np.array([-0.5 + 3j, -1e-3 + 0j, -20 - 7j, -1e-9 + 1e-9j])
STEP = np.array([0.1, 1e-3, 0.5, 1.0])


@pytest.mark.parametrize("rule", RULES)
def test_agrees_with_scipy(x64, rule):
    log_lam, gain = RULES[rule].forward(jnp.asarray(LAMBDA), jnp.asarray(STEP))
    for k in range(len(LAMBDA)):
        one = np.ones((1, 1))
        A, B, *_ = scipy.signal.cont2discrete(
            (LAMBDA[k] * one, one, one, 0 * one), STEP[k], method=rule
        )
        np.testing.assert_allclose(np.exp(log_lam[k]), A[0, 0], rtol=1e-9)
        # scipy's bilinear C carries the factor that the current-input convention puts elsewhere
        np.testing.assert_allclose(gain[k], B[0, 0], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_inverse(x64, rule):
    log_lam, gain = RULES[rule].forward(jnp.asarray(LAMBDA), jnp.asarray(STEP))
    Lambda, same_gain = RULES[rule].inverse(log_lam, jnp.asarray(STEP))
    np.testing.assert_allclose(Lambda, LAMBDA, rtol=1e-9)
    np.testing.assert_allclose(same_gain, gain, rtol=1e-9)
