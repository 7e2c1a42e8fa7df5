"""Structured Gramian factors against the Gramians themselves and against exact determinants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.linear.gramians import expm1, gramian_factor, real_gramian_factor

factor = jax.jit(gramian_factor, static_argnames="tolerance")
real_factor = jax.jit(real_gramian_factor, static_argnames="tolerance")


@pytest.fixture(autouse=True)
def _double(x64):
    pass


def test_factor_reproduces_gramian(kind, system, oracle):
    lti = system(kind)
    P, _ = oracle.gramians(lti)
    L, rank = factor(lti.log_lam, lti.B)
    scale = np.sqrt(np.outer(P.diagonal().real, P.diagonal().real))
    assert np.all(np.abs(L @ L.conj().T - P) <= 1e-12 * scale)
    assert rank <= 24


@pytest.mark.parametrize("inputs", [1, 2, 5])
@pytest.mark.parametrize("tolerance", [0.0, 1e-29])
def test_real_factor_reproduces_both_covariances(inputs, tolerance, kind, system):
    """P_ij = b_i b_j^H / (1 - lam_i lam_j*) and N_ij = b_i b_j^T / (1 - lam_i lam_j)."""
    lti = system(kind, m=inputs)
    log_lam, B = lti.log_lam, lti.B
    P = B @ B.conj().T / -np.expm1(log_lam[:, None] + log_lam.conj())
    N = B @ B.T / -np.expm1(log_lam[:, None] + log_lam)
    L, rank = (np.asarray(x) for x in real_factor(log_lam, B, tolerance=tolerance))
    scale = np.sqrt(np.outer(P.diagonal().real, P.diagonal().real))
    assert np.all(np.abs(L @ L.conj().T - P) <= 1e-12 * scale)
    assert np.all(np.abs(L @ L.T - N) <= 1e-12 * scale)
    size = np.max(np.abs(L), axis=0)
    assert np.all(np.diff(size) <= 0)
    assert np.sum(size > 0) == rank
    if kind == "real":  # one column for each mode, not two
        assert rank == 24


def test_columns_descend_and_stop(kind, system, oracle):
    lti = system(kind)
    P, _ = oracle.gramians(lti)
    L, rank = (np.asarray(x) for x in factor(lti.log_lam, lti.B, tolerance=1e-6))
    full, _ = factor(lti.log_lam, lti.B)
    np.testing.assert_allclose(L[:, :rank], full[:, :rank], rtol=1e-12)
    assert not L[:, rank:].any()
    remainder = (P - L @ L.conj().T).diagonal().real
    assert remainder.max() <= 1.001e-6 * P.diagonal().real.max()
    heads = np.max(np.abs(L[:, :rank]), axis=0)
    assert np.all(np.diff(heads) <= 1e-12 * heads[0])


@pytest.mark.parametrize("kind", ["real", "ring", "hippo", "clustered"])
def test_determinant_of_one_input_is_exact(kind, system):
    """det P = prod |b_i|^2 / (1 - |lam_i|^2) * prod_{i<j} |blaschke_ij|^2 for one input."""
    lti = system(kind)
    b = lti.B[:, :1]
    L, _ = factor(lti.log_lam, b)
    log_lam = lti.log_lam
    exact = np.sum(np.log(np.abs(b[:, 0])) - 0.5 * np.log(-np.expm1(2 * log_lam.real)))
    i, j = np.triu_indices(log_lam.size, 1)
    exact += np.sum(np.log(np.abs(np.expm1(log_lam[i] - log_lam[j]))) + log_lam[j].real)
    exact -= np.sum(np.log(np.abs(np.expm1(log_lam[i] + log_lam[j].conj()))))
    # a row permutation of a triangle: its determinant is the product of the pivots
    pivots = _pivots(np.asarray(L))
    assert np.sum(np.log(np.abs(pivots))) == pytest.approx(exact, abs=1e-10)
    if kind == "real":
        assert np.abs(pivots).min() < 1e-8 * np.abs(pivots).max()


def _pivots(L):
    """The heads of the columns: in each, the one row that no later column touches."""
    used, pivots = set(), []
    last = np.max(np.where(L != 0, np.arange(L.shape[1]), -1), axis=1)
    for k in range(L.shape[1]):
        (row,) = [i for i in np.flatnonzero(last == k) if i not in used]
        used.add(row)
        pivots.append(L[row, k])
    return np.array(pivots)


def test_duplicates_have_the_exact_rank(system):
    lti = system("duplicates")
    L, rank = factor(lti.log_lam, lti.B, tolerance=1e-28)
    assert rank == 16
    assert not L[:, 16:].any()


@pytest.mark.parametrize("tolerance", [0.0, 1e-20])
def test_zero_input_has_rank_zero(tolerance, system):
    lti = system("ring")
    L, rank = factor(lti.log_lam, np.zeros_like(lti.B), tolerance=tolerance)
    assert rank == 0
    assert not np.asarray(L).any()


def test_float32_and_vmap(kind, system, oracle):
    systems = [system(kind, seed, dtype=np.complex64) for seed in range(2)]
    log_lam, B = (jnp.stack([getattr(s, f) for s in systems]) for f in ("log_lam", "B"))
    L, _ = jax.jit(jax.vmap(gramian_factor))(log_lam, B)
    assert L.dtype == jnp.complex64
    for k, lti in enumerate(systems):
        P, _ = oracle.gramians(lti)
        scale = np.sqrt(np.outer(P.diagonal().real, P.diagonal().real)) + 1e-30
        assert np.max(np.abs(L[k] @ L[k].conj().T - P) / scale) < 3e-5


def test_low_rank_needs_few_steps():
    """Poles on a real interval: the Gramian's rank grows with the logarithm of the tolerance."""
    n = 512
    log_lam = -np.geomspace(1e-3, 1.0, n) + 0j
    B = np.random.default_rng(0).standard_normal((n, 2)) + 0j
    _, rank = factor(log_lam, B, tolerance=1e-20)
    assert rank < 100


@pytest.mark.parametrize("z", [1e-12 + 1e-13j, -1e-9 + 3.0j, 1e-14 + 2j * np.pi, -40 + 1j, 0j])
def test_expm1(z):
    half = np.sin(z.imag / 2)
    expected = complex(
        np.expm1(z.real) * np.cos(z.imag) - 2 * half**2, np.exp(z.real) * np.sin(z.imag)
    )
    assert complex(expm1(jnp.array(z))) == pytest.approx(expected, rel=1e-14)
