"""Balanced truncation: known answers, laws, and the systems that break the textbook's formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.analysis.verify import hinf_error
from compress.linear.balance import _factor_jit, balanced_truncation, gramian_factors, project
from compress.linear.hankel import hankel_singular_values
from compress.linear.modal import MIN_LOG_MODULUS
from zoo import DiagonalLTI


def check_is_valid(lti, truncation, response):
    """What holds for every truncation, whatever the system."""
    t = truncation
    lam = np.exp(np.asarray(lti.log_lam, np.complex128))
    assert t.V.shape == (lti.d_state, t.rank)
    assert t.lti.d_state == t.rank
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((t.lti, t.V, t.W, t.sigma)))
    assert np.max(t.lti.log_lam.real) < 0
    assert np.min(t.lti.log_lam.real) >= MIN_LOG_MODULUS
    assert np.all((t.lti.log_lam.imag > -np.pi) & (t.lti.log_lam.imag <= np.pi))
    np.testing.assert_allclose(t.W @ t.V, np.eye(t.rank), atol=1e-10)
    np.testing.assert_allclose((t.W * lam) @ t.V, np.diag(np.exp(t.lti.log_lam)), atol=1e-9)
    np.testing.assert_allclose(t.W @ lti.B, t.lti.B, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(lti.C @ t.V, t.lti.C, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(t.lti.D, lti.D)
    assert t.bound - t.rounding == pytest.approx(2 * t.sigma[t.rank :].sum())
    assert 0 <= t.rounding <= 1e-6 * t.sigma[0]


def test_truth(truth, response):
    for r, error, bound in zip(truth.r, truth.err_hinf, truth.bound, strict=True):
        t = balanced_truncation(truth.lti, int(r), form="complex")
        assert t.rank == r
        assert 2 * t.sigma[t.rank :].sum() == pytest.approx(bound, rel=1e-12)
        assert t.bound == 2 * t.sigma[t.rank :].sum() + t.rounding
        if truth.lti.d_state < 100 or r == truth.r[3]:  # a sweep of a large system takes time
            measured = hinf_error(truth.lti, t.lti, form="complex")
            assert measured == pytest.approx(error, rel=1e-9)
            assert t.sigma[r] * (1 - 1e-12) <= measured <= t.bound * (1 + 1e-12)
        check_is_valid(truth.lti, t, response)
        G = response(t.lti, truth.w_test)
        known = getattr(truth, f"Hr_test_{r}", None)
        if known is not None:
            np.testing.assert_allclose(G, known, atol=1e-10 * np.abs(known).max())
        if hasattr(truth, f"Ar_{r}"):
            poles = np.linalg.eigvals(getattr(truth, f"Ar_{r}"))
            distance = np.abs(poles[:, None] - np.exp(t.lti.log_lam))
            assert distance.min(axis=0).max() < 1e-9
            assert distance.min(axis=1).max() < 1e-9


@pytest.mark.parametrize("rank", [1, 2, 5, 9, 16, 23])
def test_error_lies_between_its_bounds(kind, rank, system, response):
    lti = system(kind)
    t = balanced_truncation(lti, rank, form="complex")
    check_is_valid(lti, t, response)
    assert t.rank == min(rank, np.sum(t.sigma > 24 * 2.3e-16 * t.sigma[0]))
    error = hinf_error(lti, t.lti, form="complex")
    noise = 1e-10 * t.sigma[0]
    next_sigma = t.sigma[t.rank] if t.rank < 24 else 0
    assert next_sigma - noise <= error <= t.bound + noise
    np.testing.assert_allclose(
        t.sigma, hankel_singular_values(lti, form="complex"), rtol=1e-9, atol=1e-15 * t.sigma[0]
    )


@pytest.mark.parametrize("rank", [1, 6])
def test_gauge_changes_nothing(kind, rank, system, response):
    lti = system(kind)
    rng = np.random.default_rng(1)
    order = rng.permutation(lti.d_state)
    scale = np.exp(rng.uniform(-20, 20, lti.d_state) + 1j * rng.uniform(0, 6, lti.d_state))
    other = DiagonalLTI(
        lti.log_lam[order], (scale[:, None] * lti.B)[order], (lti.C / scale)[:, order], lti.D
    )
    w = np.linspace(-3, 3, 31)
    G = response(balanced_truncation(lti, rank, form="complex").lti, w)
    again = response(balanced_truncation(other, rank, form="complex").lti, w)
    np.testing.assert_allclose(again, G, atol=1e-9 * np.abs(G).max())


@pytest.mark.parametrize("form", ["complex", "real"])
@pytest.mark.parametrize("rank", [24, 25, 1000])
def test_full_rank_is_the_identity(kind, rank, form, system):
    lti = system(kind)
    t = balanced_truncation(lti, rank, form=form)
    assert t.lti is lti
    assert t.rank == 24
    assert t.bound == 0
    np.testing.assert_array_equal(t.V, np.eye(24))
    np.testing.assert_array_equal(t.W, np.eye(24))


def real_response(lti, w, response):
    return (response(lti, w) + response(lti, -w).conj()) / 2


@pytest.mark.parametrize("rank", [1, 2, 5, 9, 16, 23])
def test_real_map(kind, rank, system, response):
    """Everything that holds for the complex form, of the map u -> Re(C x) and its 48 states."""
    lti = system(kind)
    t = balanced_truncation(lti, rank, form="real")
    full, small = np.exp(lti.log_lam), np.exp(t.lti.log_lam)
    real = np.isin(t.lti.log_lam.imag, [0, np.pi])
    assert t.rank == t.lti.d_state <= rank
    assert t.order == 2 * t.rank - np.sum(real)
    numerical = np.sum(t.sigma > 48 * 2.3e-16 * t.sigma[0])
    assert t.rank == rank or t.order >= numerical - 1 or t.order == 2 * rank - 1
    assert np.max(t.lti.log_lam.real) < 0
    # the two maps between states and their conjugates
    there = t.W @ t.V + t.W_conj @ t.V_conj.conj()
    np.testing.assert_allclose(there, np.diag(np.where(real, 0.5, 1)), atol=1e-9)
    moved = (t.W * full) @ t.V + (t.W_conj * full.conj()) @ t.V_conj.conj()
    np.testing.assert_allclose(moved, np.diag(np.where(real, 0.5, 1) * small), atol=1e-8)
    np.testing.assert_allclose(t.W @ lti.B + t.W_conj @ lti.B.conj(), t.lti.B, rtol=1e-12)
    np.testing.assert_allclose(
        lti.C @ t.V + (lti.C @ t.V_conj).conj(), t.lti.C, rtol=1e-9, atol=1e-12
    )
    error = hinf_error(lti, t.lti, form="real")
    noise = 1e-10 * t.sigma[0]
    next_sigma = t.sigma[t.order] if t.order < 48 else 0
    assert next_sigma - noise <= error <= t.bound + noise
    values = hankel_singular_values(lti, form="real")
    np.testing.assert_allclose(t.sigma, values, rtol=1e-9, atol=1e-15 * values[0])


@pytest.mark.parametrize("truth", ["vii_s5_dt1e-2_m16"], indirect=True)
def test_truth_of_the_real_map(truth, response):
    """The known reductions are those of all pairs; an order with real modes may not be offered."""
    k = int(truth.conj_pairs)
    lti = truth.lti
    half = DiagonalLTI(lti.log_lam[:k], lti.B[:k], 2 * lti.C[:, :k], lti.D)
    met = []
    for rank in (8, 16, 17, 32, 48, 55, 60):
        t = balanced_truncation(half, rank, form="real")
        if t.order not in truth.r:
            continue
        met.append(t.order)
        G = real_response(t.lti, truth.w_test, response)
        known = getattr(truth, f"Hr_test_{t.order}")
        np.testing.assert_allclose(G, known, atol=1e-10 * np.abs(known).max())
        if t.order in (16, 96):
            error = hinf_error(half, t.lti, form="real")
            assert error == pytest.approx(truth.err_hinf[truth.r == t.order].item(), rel=1e-9)
    assert len(met) >= 3


def test_real_modes_of_a_real_system_take_one_state_each(system, response):
    """A symmetric system (C = B^T) stays one: all its eigenvalues are real, in both forms."""
    lti = system("real")
    lti = eqx.tree_at(lambda s: s.C, lti, lti.B.T)
    w = np.linspace(-3, 3, 31)
    both = [balanced_truncation(lti, 7, form=form) for form in ("complex", "real")]
    assert [t.rank for t in both] == [7, 7]
    G = [real_response(t.lti, w, response) for t in both]
    np.testing.assert_allclose(G[1], G[0], atol=1e-10 * np.abs(G[0]).max())


def test_real_mode_has_gradients_off_the_real_line(system):
    """Real and imaginary parts of its B and C have gradients of their own, and no simple ratio."""
    lti = system("real")
    t = balanced_truncation(eqx.tree_at(lambda s: s.C, lti, lti.B.T), 3, form="real")
    assert t.order == 3
    phase = np.angle(t.lti.B[:, 0] ** 2) / 2
    assert np.all(np.abs(np.sin(4 * phase)) > 0.5)
    np.testing.assert_allclose((t.lti.C[:, :, None] * t.lti.B).imag, 0, atol=1e-10)


def alike():
    """Two channels that are alike."""
    one = diagonal([-0.1 + 1j, -0.3 + 2j, -0.2 - 1.5j], C=np.array([[1.0, 2.0, 0.5]]))
    zero = np.zeros((3, 1), complex)
    return DiagonalLTI(
        np.concatenate([one.log_lam, one.log_lam]),
        np.block([[one.B, zero], [zero, one.B]]),
        np.block([[one.C, zero.T], [zero.T, one.C]]),
        np.zeros(2),
    )


@pytest.mark.parametrize("form", ["complex", "real"])
def test_ties_are_not_cut(form):
    """Sigma come in equal twos, and the order is even."""
    lti = alike()
    t = balanced_truncation(lti, 3, form=form)
    assert t.order == {"complex": 2, "real": 4}[form]  # a sixth would make four states of both
    assert t.sigma[t.order] < 0.999 * t.sigma[t.order - 1]
    assert hinf_error(lti, t.lti, form=form) <= t.bound


@pytest.mark.parametrize(("rank", "order"), [(3, 4), (4, 8), (5, 8)])
def test_no_rounding_makes_a_pair_of_two_equal_real_modes(rank, order):
    """Of orders 6 and 10 each channel has a real mode: however both are mixed, they stay two."""
    lti, rng = alike(), np.random.default_rng(0)
    for _ in range(12):
        inputs, outputs = np.linalg.qr(rng.normal(size=(2, 2, 2)))[0]
        turned = eqx.tree_at(lambda s: (s.B, s.C), lti, (lti.B @ inputs, outputs @ lti.C))
        assert balanced_truncation(turned, rank, form="real").order == order


@pytest.mark.parametrize("rank", [6, 12, 30])
def test_decays_fast(rank, response):
    """sigma falls by 1e13 within the kept states: their small ones are still worth keeping."""
    lti = diagonal(-np.geomspace(1e-3, 2.0, 40))
    t = balanced_truncation(lti, rank, form="complex")
    check_is_valid(lti, t, response)
    assert t.rank <= rank
    assert hinf_error(lti, t.lti, form="complex") <= t.bound + 1e-12 * t.sigma[0]


def test_no_state_returns_that_is_not_there(system):
    """Of 24 states 16 are needed: rank 20 gives 16, and they are the whole system."""
    lti = system("duplicates")
    t = balanced_truncation(lti, 20, form="complex")
    assert t.rank == 16
    assert hinf_error(lti, t.lti, form="complex") < 1e-10 * t.sigma[0]


@pytest.mark.parametrize("form", ["complex", "real"])
@pytest.mark.parametrize("field", ["B", "C"])
def test_output_is_always_zero(field, form, system, response):
    lti = system("ring")
    lti = eqx.tree_at(lambda s: getattr(s, field), lti, np.zeros_like(getattr(lti, field)))
    t = balanced_truncation(lti, 7, form=form)
    assert t.rank == 1
    check_is_valid(lti, t, response)
    assert not response(t.lti, np.array([0.0, 1.0])).any()


@pytest.mark.parametrize("arrays", [np.asarray, jnp.asarray])
def test_precision_is_that_of_the_system(kind, arrays, system, response):
    lti = jax.tree.map(arrays, system(kind, dtype=np.complex64))
    t = balanced_truncation(lti, 9, form="complex")
    for field in ("log_lam", "B", "C", "D"):
        before, after = getattr(lti, field), getattr(t.lti, field)
        assert after.dtype == before.dtype
        assert isinstance(after, np.ndarray) == isinstance(before, np.ndarray)
    assert t.V.dtype == t.W.dtype == np.complex128
    exact = balanced_truncation(
        jax.tree.map(lambda x: np.asarray(x, np.result_type(x.dtype, np.float64)), lti),
        9,
        form="complex",
    )
    w = np.linspace(-3, 3, 31)
    G = response(exact.lti, w)
    # the peaks of slow modes feel the rounding of their eigenvalues: eps / decay
    np.testing.assert_allclose(response(t.lti, w), G, atol=3e-3 * np.abs(G).max())


def diagonal(log_lam, B=None, C=None):
    n = len(log_lam)
    B = np.ones((n, 1)) if B is None else B
    C = np.ones((1, n)) if C is None else C
    return DiagonalLTI(np.array(log_lam, complex), B + 0j, C + 0j, np.zeros(len(C)))


def identity(n):
    return np.eye(n, dtype=complex)


def test_eigenvalues_at_the_edges():
    """Negative real ones have angle +pi, zero a finite logarithm, those on the circle go inside."""
    lti = diagonal([-1e-17 + 1.3j, -1.0 - 1j * np.pi, -800.0, -1e-17 - 2j])
    reduced, _, _ = project(lti, identity(4), identity(4))
    assert sorted(np.round(reduced.log_lam.imag, 12)) == [-2.0, 0.0, 1.3, np.round(np.pi, 12)]
    assert np.min(reduced.log_lam.real) == pytest.approx(MIN_LOG_MODULUS)
    assert np.all(reduced.log_lam.real <= -1e-17)


def test_slowest_eigenvalue_keeps_its_digits():
    """A decay of 1e-13 per sample without rotation: in lam itself three digits are left of it."""
    lti = diagonal([-1e-13, -0.5, -0.7 + 1j])
    t = balanced_truncation(lti, 1, form="complex")
    assert t.lti.log_lam[0].real == pytest.approx(-1e-13, rel=1e-6)


def test_balanced_states_of_a_slow_rotating_system(response):
    """Decays of 1e-15: nothing comes out unstable, nothing infinite."""
    rng = np.random.default_rng(0)
    log_lam = -(10 ** rng.uniform(-15, -13, 24)) + 1j * rng.uniform(-3, 3, 24)
    lti = diagonal(log_lam, rng.standard_normal((24, 2)), rng.standard_normal((2, 24)))
    t = balanced_truncation(lti, 9, form="complex")
    assert np.max(t.lti.log_lam.real) < 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(t))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.complex128, 1e-7), (np.complex64, 3e-2)])
def test_defective_matrix(size, dtype, tolerance, response):
    """A Jordan block has no modal form: one near it is found, whose residues do not cancel away."""
    rng = np.random.default_rng(0)
    jordan = 0.8 * np.eye(size) + np.diag(np.full(size - 1, 0.3), 1)
    log_lam = -rng.uniform(0.05, 0.5, 2 * size) + 1j * rng.uniform(-2, 2, 2 * size)
    lti = diagonal(log_lam, rng.standard_normal((2 * size, 1)), rng.standard_normal((1, 2 * size)))
    V = rng.standard_normal((2 * size, size)) + 0j
    both = np.concatenate([V, np.exp(log_lam)[:, None] * V], axis=1)
    W = np.concatenate([np.eye(size), jordan], axis=1) @ np.linalg.inv(both)  # W diag(lam) V is it
    cast = DiagonalLTI(*(x.astype(dtype) for x in (lti.log_lam, lti.B, lti.C)), lti.D)
    reduced, _, _ = project(cast, V, W)
    w = np.linspace(-3, 3, 50)
    expected = np.stack(
        [lti.C @ V @ np.linalg.solve(np.eye(size) - jordan / z, W @ lti.B) for z in np.exp(1j * w)]
    )
    np.testing.assert_allclose(
        response(reduced, w), expected, atol=tolerance * np.abs(expected).max()
    )
    assert np.max(reduced.log_lam.real) < 0


def test_another_rank_compiles_nothing(system):
    lti = system("ring")
    balanced_truncation(lti, 3, form="complex")
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
    try:
        balanced_truncation(lti, 4, form="complex")
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [name for name in events if "compile" in name]


@pytest.mark.parametrize("form", ["complex", "real"])
def test_both_gramians_share_a_program(form):
    rng = np.random.default_rng(0)
    n, m = 3, 7  # of no other test
    log_lam = -rng.uniform(0.1, 1, n)
    known = _factor_jit._cache_size()
    gramian_factors(
        diagonal(log_lam, rng.standard_normal((n, m)), rng.standard_normal((m, n))), form
    )
    assert _factor_jit._cache_size() == known + 1


def test_low_rank_system_is_reduced_quickly():
    """n = 2048 poles on a real interval: the factors stop long before 2048 columns."""
    rng = np.random.default_rng(0)
    n = 2048
    lti = diagonal(
        -np.geomspace(1e-3, 1.0, n), rng.standard_normal((n, 8)), rng.standard_normal((8, n))
    )
    t = balanced_truncation(lti, 40, form="complex")
    assert t.rank == 40
    assert np.sum(t.sigma > 0) < 1000
    np.testing.assert_allclose(t.W @ t.V, np.eye(40), atol=1e-10)


@pytest.mark.parametrize("rank", [0, -3])
def test_rank_out_of_range(rank, system):
    with pytest.raises(ValueError, match=rf"`rank` must be 1 or more, got {rank}"):
        balanced_truncation(system("ring"), rank, form="complex")


def test_invalid_system(system):
    lti = system("ring")
    with pytest.raises(ValueError, match=r"lti\.C holds NaN"):
        balanced_truncation(
            eqx.tree_at(lambda s: s.C, lti, np.full_like(lti.C, np.nan)), 3, form="complex"
        )
    with pytest.raises(ValueError, match="must be stable"):
        balanced_truncation(
            eqx.tree_at(lambda s: s.log_lam, lti, lti.log_lam + 1), 3, form="complex"
        )


@pytest.mark.parametrize("decay", [1e-12, 1e-10, 1e-7, 1e-3])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("form", ["complex", "real"])
def test_the_bound_counts_rounding_in_next_to_the_circle(decay, dtype, form, system):
    """Peaks as narrow as `decay` move by the rounding of their angles in the result's precision."""
    lti = system("ring", n=12, dtype=dtype)
    slow = np.where(np.arange(12) < 3, decay, 0.3).astype(np.finfo(dtype).dtype)
    lti = eqx.tree_at(lambda s: s.log_lam, lti, (-slow + 1j * lti.log_lam.imag).astype(dtype))
    for rank in (3, 7):
        t = balanced_truncation(lti, rank, form=form)
        assert hinf_error(lti, t.lti, form=form) <= t.bound
        tail = 2 * t.sigma[t.order :].sum()
        if decay == 1e-3 and dtype == np.complex128:
            assert t.bound == pytest.approx(tail, rel=1e-6)


@pytest.mark.parametrize("coupling", [0.05, 0.3])
@pytest.mark.parametrize("rank", [3, 6, 9])
def test_the_bound_counts_rounding_in_of_modes_that_cancel(coupling, rank):
    """A chain of lags in modal form has large modes that cancel."""
    rng = np.random.default_rng(0)
    A = np.diag(np.linspace(0.5, 0.9, 10)) + coupling * np.eye(10, k=1)
    B, C = rng.standard_normal((10, 2)), rng.standard_normal((2, 10))
    lti = DiagonalLTI.from_real(A, B, C, np.zeros((2, 2)))
    t = balanced_truncation(lti, rank)
    assert hinf_error(lti, t.lti) <= t.bound
