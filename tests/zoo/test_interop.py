"""Real matrices, python-control, and back."""

import numpy as np
import pytest

from zoo import LRU, DiagonalLTI
from zoo.interop import from_control, to_control


def system(seed: int = 0, n: int = 5, m: int = 2) -> DiagonalLTI:
    rng = np.random.default_rng(seed)
    log_lam = -rng.uniform(0.01, 0.5, n) + 1j * rng.uniform(-3, 3, n)
    B, C = rng.standard_normal((2, 2, n, m))
    log_lam[0], log_lam[1] = -0.1, -0.2 + 1j * np.pi  # real modes, one of them negative
    B, C = B[0] + 1j * B[1], (C[0] + 1j * C[1]).T
    B[0] = B[0].real
    return DiagonalLTI(log_lam, B, C, rng.standard_normal((m, m)))


def run(A, B, C, D, u):
    x, y = np.zeros(len(A)), []
    for u_k in u:
        x = A @ x + B @ u_k
        y.append(C @ x + D @ u_k)
    return np.array(y)


def test_real_matrices_are_the_same_map(x64):
    lti, u = system(), np.random.default_rng(1).standard_normal((30, 2))
    matrices = lti.to_real()
    assert len(matrices[0]) == 9  # one of the real modes has no imaginary part
    np.testing.assert_allclose(run(*matrices, u), lti.simulate(u), atol=1e-12)
    back = DiagonalLTI.from_real(*matrices)
    np.testing.assert_allclose(back.simulate(u), lti.simulate(u), atol=1e-12)


def test_layers_go_there_and_back(getkey):
    lti = LRU.init(3, 8, key=getkey()).to_lti()
    back = DiagonalLTI.from_real(*lti.to_real())
    assert back.d_state == 8
    w = np.linspace(0, np.pi, 50)
    expected = lti.frequency_response(w)
    np.testing.assert_allclose(back.frequency_response(w), expected, atol=1e-4, rtol=1e-4)


def test_what_has_no_diagonal_form_is_refused():
    jordan = np.array([[0.5, 1.0], [0.0, 0.5]])
    with pytest.raises(ValueError, match="`A` must have eigenvectors of a condition"):
        DiagonalLTI.from_real(jordan, np.ones((2, 1)), np.ones((1, 2)), np.zeros((1, 1)))


@pytest.mark.parametrize("delayed", [False, True])
def test_python_control(delayed, x64):
    control = pytest.importorskip("control")
    lti, u = system(), np.random.default_rng(1).standard_normal((30, 2))
    there = to_control(lti, delayed=delayed)
    back = from_control(there, delayed=delayed)
    np.testing.assert_allclose(back.simulate(u), lti.simulate(u), atol=1e-11)
    y = control.forced_response(there, inputs=u.T).outputs.T
    if delayed:
        states = lti.simulate(u) - lti.feedthrough(u)
        expected = np.concatenate([np.zeros((1, 2)), states[:-1]]) + lti.feedthrough(u)
    else:
        expected = lti.simulate(u)
    np.testing.assert_allclose(y, expected, atol=1e-11)


def test_continuous_time_is_refused():
    control = pytest.importorskip("control")
    with pytest.raises(ValueError, match="must be in discrete time, got continuous"):
        from_control(control.ss([[-1.0]], [[1.0]], [[1.0]], [[0.0]]))
