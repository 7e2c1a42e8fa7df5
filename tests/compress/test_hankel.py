"""Hankel singular values: known answers, laws, precision, derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import balanced_truncation, h2_error, verify
from compress.linear.hankel import error_bound, hankel_singular_values
from zoo import DiagonalLTI


def single(lti: DiagonalLTI) -> DiagonalLTI:
    """The system in single precision, as JAX arrays."""
    cast = {"c": np.complex64, "f": np.float32}
    return jax.tree.map(lambda x: jnp.asarray(x.astype(cast[x.dtype.kind])), lti)


def test_truth(truth):
    sigma = hankel_singular_values(truth.lti, form="complex")
    known = truth.hsv[: truth.hsv_certified]
    np.testing.assert_allclose(sigma[: known.size], known, rtol=1e-11)
    assert np.all(sigma[known.size :] <= 1e-15 * sigma[0])


def test_truth_in_single_precision(truth):
    sigma = hankel_singular_values(single(truth.lti), form="complex")
    large = truth.hsv > 1e-5 * truth.hsv[0]
    np.testing.assert_allclose(sigma[large], truth.hsv[large], rtol=1e-5)
    assert np.isfinite(sigma).all()


@pytest.mark.parametrize("truth", ["vii_s5_dt1e-2_m16"], indirect=True)
def test_truth_of_the_real_map(truth):
    k = int(truth.conj_pairs)
    lti, D = truth.lti, truth.lti.D
    half = DiagonalLTI(lti.log_lam[:k], lti.B[:k], 2 * lti.C[:, :k], D)
    np.testing.assert_allclose(hankel_singular_values(half, form="real"), truth.hsv, rtol=1e-12)
    half = DiagonalLTI(lti.log_lam[:k], lti.B[:k], lti.C[:, :k], D)
    np.testing.assert_allclose(
        hankel_singular_values(half, form="complex"), truth.hsv_half, rtol=1e-12
    )


def test_plain_implementation_agrees(kind, system, oracle):
    lti = system(kind)
    sigma, plain = hankel_singular_values(lti, form="complex"), oracle.singular_values(lti)
    assert isinstance(sigma, np.ndarray)
    assert sigma.dtype == np.float64
    assert np.all(np.diff(sigma) <= 0)
    np.testing.assert_allclose(sigma, plain, rtol=1e-7, atol=1e-8 * plain[0])


def test_product_of_all_is_exact(system):
    """One input and output: prod sigma_i = prod |b_i c_i| / (1-|lam_i|^2) prod_{i<j} |bl_ij|^2."""
    lti = system("real")
    log_lam, b, c = lti.log_lam, lti.B[:, 0], lti.C[0]
    lti = DiagonalLTI(log_lam, lti.B[:, :1], lti.C[:1], np.zeros(1))
    sigma = hankel_singular_values(lti, form="complex")
    i, j = np.triu_indices(b.size, 1)
    difference = np.expm1(log_lam[i] - log_lam[j]) * np.exp(log_lam[j])
    blaschke = np.abs(difference / np.expm1(log_lam[i] + log_lam[j].conj()))
    exact = np.log(np.abs(b * c) / -np.expm1(2 * log_lam.real)).sum() + 2 * np.log(blaschke).sum()
    assert np.log(sigma).sum() == pytest.approx(exact, abs=1e-10)
    assert sigma[-1] < 1e-13 * sigma[0]


@pytest.mark.parametrize("form", ["complex", "real"])
def test_gauge_changes_nothing(kind, form, system):
    lti = system(kind)
    rng = np.random.default_rng(1)
    order = rng.permutation(lti.d_state)
    scale = np.exp(rng.uniform(-30, 30, lti.d_state) + 1j * rng.uniform(0, 6, lti.d_state))
    turn = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    other = DiagonalLTI(
        lti.log_lam[order] + 2j * np.pi,
        (scale[:, None] * lti.B)[order] @ turn,
        turn @ (lti.C / scale)[:, order],
        lti.D,
    )
    sigma = hankel_singular_values(lti, form=form)
    np.testing.assert_allclose(
        hankel_singular_values(other, form=form), sigma, rtol=1e-9, atol=1e-15 * sigma[0]
    )


def test_real_form_is_the_doubled_system(kind, system):
    lti = system(kind)
    both = DiagonalLTI(
        np.concatenate([lti.log_lam, lti.log_lam.conj()]),
        np.concatenate([lti.B, lti.B.conj()]),
        np.concatenate([lti.C, lti.C.conj()], axis=1) / 2,
        lti.D,
    )
    real, expected = (
        hankel_singular_values(lti, form="real"),
        hankel_singular_values(both, form="complex"),
    )
    np.testing.assert_allclose(real, expected, rtol=1e-10, atol=1e-15 * real[0])


def test_real_system_has_the_same_values_in_both_forms(system):
    lti = system("real")
    sigma, real = (
        hankel_singular_values(lti, form="complex"),
        hankel_singular_values(lti, form="real"),
    )
    np.testing.assert_allclose(real[: sigma.size], sigma, rtol=1e-9, atol=1e-16 * sigma[0])
    assert np.all(real[sigma.size :] <= 1e-15 * sigma[0])


def test_traced_values_have_the_precision_of_the_system(kind, system):
    lti = single(system(kind))
    concrete = hankel_singular_values(lti)
    traced = jax.jit(hankel_singular_values)(lti)
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, concrete, rtol=1e-6, atol=1e-30)
    if kind != "clustered":  # there, rounding the eigenvalues themselves changes the system
        large = concrete > 1e-5 * concrete[0]
        plain = hankel_singular_values(system(kind))
        np.testing.assert_allclose(concrete[large], plain[large], rtol=1e-4)


def test_vmap(kind, system):
    systems = [single(system(kind, seed)) for seed in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *systems)
    values = jax.jit(jax.vmap(hankel_singular_values))(stacked)
    for row, lti in zip(values, systems, strict=True):
        np.testing.assert_allclose(row, hankel_singular_values(lti), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("form", ["complex", "real"])
def test_derivative(kind, form, system, x64):
    lti = system(kind)

    @jax.jit
    def measure(lti):
        sigma = hankel_singular_values(lti, form=form)
        return jnp.sum(sigma[:7] ** 2 * jnp.arange(1, 8)) / 1e3

    inexact = DiagonalLTI(*(jnp.asarray(x) for x in (lti.log_lam, lti.B, lti.C, lti.D)))
    gradient = jax.jit(jax.grad(measure))(inexact)
    rng = np.random.default_rng(0)
    for field in ("log_lam", "B", "C"):
        x, g = getattr(lti, field), np.asarray(getattr(gradient, field))
        direction = rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape)
        if field == "log_lam":
            direction *= -x.real
        h = 1e-6
        moved = [
            measure(eqx.tree_at(lambda s, f=field: getattr(s, f), inexact, x + s * h * direction))
            for s in (1, -1)
        ]
        expected = float(moved[0] - moved[1]) / (2 * h)
        # at a tie the sum of both is smooth, each alone is not: hence only well-separated kinds
        if form == "complex" and kind in ("ring", "hippo"):
            assert np.real(np.sum(g * direction)) == pytest.approx(expected, rel=1e-5)
        assert np.isfinite(g).all()


def test_derivative_at_ties_and_zeros():
    """Two equal modes and one that is neither reached nor seen: the sum of both is smooth."""
    lti = DiagonalLTI(
        jnp.array([-0.1 + 1j, -0.1 - 1j, -0.2 + 0j], jnp.complex64),
        jnp.array([[1, 0], [0, 1], [0, 0]], jnp.complex64),
        jnp.array([[1, 0, 0], [0, 1, 0]], jnp.complex64),
        jnp.zeros(2),
    )
    value, gradient = jax.value_and_grad(lambda s: hankel_singular_values(s, form="complex").sum())(
        lti
    )
    decay = -np.expm1(-0.2)
    assert value == pytest.approx(2 / decay, rel=1e-6)
    slope = -2 * np.exp(-0.2) / decay**2  # d/d(log|lam|) of 1 / (1 - |lam|^2), with its sign
    np.testing.assert_allclose(np.real(gradient.log_lam), [-slope, -slope, 0], rtol=1e-5)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_nothing_is_zero(system):
    lti = system("ring")
    lti = eqx.tree_at(lambda s: s.B, single(lti), jnp.zeros((24, 2), jnp.complex64))
    assert not hankel_singular_values(lti, form="complex").any()
    gradient = jax.grad(lambda s: hankel_singular_values(s, form="complex").sum())(lti)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_error_bound():
    sigma = np.array([4.0, 2.0, 1.0])
    assert error_bound(sigma, 1) == 6.0
    assert error_bound(sigma, 3) == 0.0
    assert jax.jit(error_bound, static_argnums=1)(sigma, 2) == 2.0


@pytest.mark.parametrize("field", ["log_lam", "B", "C", "D"])
def test_not_finite(field, system):
    lti = system("ring")
    x = getattr(lti, field).copy()
    x.flat[3 % x.size] = np.nan
    with pytest.raises(ValueError, match=rf"lti\.{field} holds NaN or infinity in 1 of"):
        hankel_singular_values(eqx.tree_at(lambda s: getattr(s, field), lti, x), form="complex")


def test_unstable(system):
    lti = system("ring")
    with pytest.raises(ValueError, match=r"must be stable, of spectral radius below 1, got 1\.05"):
        hankel_singular_values(
            eqx.tree_at(lambda s: s.log_lam, lti, lti.log_lam + 0.05), form="complex"
        )


ONE = {"log_lam": [-0.1 + 1j, -0.2], "B": np.ones((2, 1), complex), "C": np.ones((1, 2), complex)}
MEANINGLESS = {
    "no state": ({"log_lam": [], "B": np.ones((0, 1)), "C": np.ones((1, 0))}, "must have a state"),
    "no input": ({"B": np.ones((2, 0)), "D": np.ones((1, 0))}, "must have a state, an input"),
    "no output": ({"C": np.ones((0, 2)), "D": np.ones((0, 1))}, "must have a state, an input"),
    "whole numbers": ({"B": np.ones((2, 1), int)}, "B must be of complex or real numbers"),
    "overflow": ({"C": np.full((1, 2), 1e200)}, r"C must have entries up to 1e\+100, got 1e\+200"),
}


@pytest.mark.parametrize("name", MEANINGLESS)
def test_systems_without_a_meaning_are_refused(name):
    changes, message = MEANINGLESS[name]
    parts = {**ONE, "D": np.zeros((1, 1)), **changes}
    lti = DiagonalLTI(np.asarray(parts.pop("log_lam"), complex), **parts)
    calls = (hankel_singular_values, lambda x: balanced_truncation(x, 1), lambda x: h2_error(x, x))
    for call in (*calls, lambda x: verify(x, x)):
        with pytest.raises(ValueError, match=message):
            call(lti)
