"""H2-optimal reduction: the inner product and its gradient, the conditions of an optimum."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import (
    H2Optimal,
    Rank,
    balanced_truncation,
    compress,
    h2_error,
    optimal_reduction,
    plan,
    verify,
)
from compress.linear.h2 import inner
from compress.linear.modal import double_arrays
from compress.linear.two_sided import two_sided
from zoo import LRU, S5, DiagonalLTI


def system(seed: int, n: int = 6, m: int = 2, p: int = 3) -> DiagonalLTI:
    rng = np.random.default_rng(seed)
    return DiagonalLTI(
        log_lam=-rng.uniform(0.02, 0.5, n) + 1j * rng.uniform(0.1, 3.0, n),
        B=rng.normal(size=(n, m)) + 1j * rng.normal(size=(n, m)),
        C=rng.normal(size=(p, n)) + 1j * rng.normal(size=(p, n)),
        D=np.zeros((p, m)),
    )


def impulse_responses(lti: DiagonalLTI, length: int = 2000) -> np.ndarray:
    powers = np.exp(np.arange(length)[:, None] * np.asarray(lti.log_lam))
    return np.real(np.einsum("pn,kn,nm->kpm", lti.C, powers, lti.B))


def test_the_error_is_that_of_the_impulse_responses():
    a, b = system(0), system(1, n=4)
    expected = np.linalg.norm(impulse_responses(a) - impulse_responses(b))
    np.testing.assert_allclose(h2_error(a, b), expected, rtol=1e-10)


@pytest.mark.parametrize("share", [1e-3, 1e-8, 1e-12])
@pytest.mark.parametrize("decay", [1.0, 1e-4, 1e-9])
def test_small_errors_keep_their_digits(share, decay):
    """The difference is `share` of the system, and no system at all where the two are equal."""
    lti = system(0)
    lti = eqx.tree_at(lambda s: s.log_lam, lti, lti.log_lam.real * decay + 1j * lti.log_lam.imag)
    near = eqx.tree_at(lambda s: s.C, lti, lti.C * (1 + share))
    nothing = eqx.tree_at(lambda s: s.C, lti, lti.C * 0)
    exact = np.linalg.norm(near.C - lti.C) / np.linalg.norm(lti.C)
    norm = h2_error(lti, nothing)
    np.testing.assert_allclose(h2_error(lti, near) / norm, exact, rtol=1e-9 + 1e-15 / share)
    assert h2_error(lti, lti) < 1e-14 * norm


def test_systems_that_do_not_fit_have_no_error():
    with pytest.raises(
        ValueError, match="reduced must have 3 outputs and 2 inputs, as lti, got 2 and 2"
    ):
        h2_error(system(0), system(1, p=2))


def lightly_damped(seed: int, n: int = 40) -> DiagonalLTI:
    """Many resonances over three decades, sampled fast."""
    rng = np.random.default_rng(seed)
    frequency = np.exp(rng.uniform(np.log(1e-3), np.log(1), n))
    damping = np.exp(rng.uniform(np.log(5e-3), np.log(0.3), n))
    return DiagonalLTI(
        log_lam=(-damping + 1j) * frequency,
        B=rng.normal(size=(n, 1)) + 1j * rng.normal(size=(n, 1)),
        C=rng.normal(size=(1, n)) + 1j * rng.normal(size=(1, n)),
        D=np.zeros((1, 1)),
    )


@pytest.mark.parametrize("rank", [3, 5, 10])
@pytest.mark.parametrize("seed", range(2))
def test_it_is_no_worse_than_the_two_sided_iteration(seed, rank):
    lti = lightly_damped(seed)
    truncated = balanced_truncation(lti, rank)
    reduced = optimal_reduction(lti, rank)
    errors = [h2_error(lti, x.lti) for x in (reduced, truncated)]
    assert errors[0] <= errors[1]
    projected = two_sided(*(double_arrays(x) for x in (lti, truncated.lti)))
    if projected is not None:
        assert np.max(projected[0].real) < 0
        assert errors[0] <= 1.001 * h2_error(lti, DiagonalLTI(*projected, lti.D))


def test_the_strongest_states_are_a_start_too():
    """From the truncation alone, descents end at 0.885 of its error."""
    lti = lightly_damped(1, n=120)
    error = h2_error(lti, optimal_reduction(lti, 10).lti)
    assert error < 0.65 * h2_error(lti, balanced_truncation(lti, 10).lti)


def test_errors_of_ordinary_size_need_no_compilation(monkeypatch):
    monkeypatch.setattr("compress.linear.h2.gramian_factors", None)
    a, b = system(0), system(1, n=4)
    expected = np.linalg.norm(impulse_responses(a) - impulse_responses(b))
    np.testing.assert_allclose(h2_error(a, b), expected, rtol=1e-10)


@pytest.mark.parametrize("rank", [16, 22])
def test_errors_far_below_the_norm_are_brought_down(rank):
    """Truncation's is 2e-4 and 5e-6 of the norm: gains are shares of the error, not of that."""
    rng = np.random.default_rng(0)
    lti = DiagonalLTI(
        log_lam=-np.exp(rng.uniform(-7, -1, 40)) + 1j * rng.uniform(0.05, 3, 40),
        B=np.geomspace(1, 1e-6, 40)[:, None]
        * (rng.normal(size=(40, 1)) + 1j * rng.normal(size=(40, 1))),
        C=rng.normal(size=(1, 40)) + 1j * rng.normal(size=(1, 40)),
        D=np.zeros((1, 1)),
    )
    truncated = balanced_truncation(lti, rank)
    error = h2_error(lti, optimal_reduction(lti, rank).lti)
    assert error < 0.997 * h2_error(lti, truncated.lti)


def test_the_two_sided_iteration_ends_at_the_optimum():
    lti = system(1, n=12)
    truncated = balanced_truncation(lti, 4)
    projected = two_sided(*(double_arrays(x) for x in (lti, truncated.lti)))
    assert projected is not None
    ends = [DiagonalLTI(*projected, lti.D), optimal_reduction(lti, 4).lti]
    errors = [h2_error(lti, end) for end in ends]
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-3)
    assert errors[0] < 0.99 * h2_error(lti, truncated.lti)


def test_the_gradient_of_the_inner_product():
    a, b = double_arrays(system(0)), double_arrays(system(1, n=4))
    value, gradient = inner(a, b)
    h = [impulse_responses(DiagonalLTI(*x, np.zeros((3, 2)))) for x in (a, b)]
    np.testing.assert_allclose(value, np.sum(h[0] * h[1]), rtol=1e-10)
    for k, by in enumerate(gradient):
        for direction in (1, 1j):
            moved = []
            for step in (1e-6, -1e-6):
                arrays = [np.array(x) for x in b]
                arrays[k].flat[-1] += step * direction
                moved.append(inner(a, arrays)[0])
            slope = (moved[0] - moved[1]) / 2e-6
            expected = np.real(np.conj(direction) * by.flat[-1])
            np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_a_stable_system_nearer_than_the_truncated_one(seed):
    lti = system(seed, n=12)
    reduced = optimal_reduction(lti, 4)
    assert reduced.rank == 4
    assert reduced.radius < 1
    assert np.all(np.imag(reduced.lti.log_lam) >= 0)
    assert h2_error(lti, reduced.lti) < 0.99 * h2_error(lti, balanced_truncation(lti, 4).lti)


def test_at_the_optimum_it_interpolates_the_system():
    """Meier & Luenberger 1967: H b = H_r b and c H = c H_r at the mirror images of its poles."""
    lti = system(3, n=5)
    reduced = optimal_reduction(lti, 2).lti

    def at(lti: DiagonalLTI, z: complex) -> np.ndarray:
        """sum_k h_k z^-k, of the real map."""
        lam, B, C = np.exp(lti.log_lam), lti.B, lti.C
        one, other = (C / (1 - lam / z)) @ B, (C.conj() / (1 - lam.conj() / z)) @ B.conj()
        return (one + other) / 2

    lam, B, C = (np.asarray(x) for x in (np.exp(reduced.log_lam), reduced.B, reduced.C))
    size = np.linalg.norm(impulse_responses(lti))
    for k in range(2):
        z = 1 / lam[k].conj()
        gap = at(lti, z) - at(reduced, z)
        b, c = B[k].conj() / np.linalg.norm(B[k]), C[:, k].conj() / np.linalg.norm(C[:, k])
        np.testing.assert_allclose(gap @ b, 0, atol=1e-3 * size)
        np.testing.assert_allclose(c @ gap, 0, atol=1e-3 * size)


def test_it_is_a_projection():
    lti = system(3, n=5)
    reduced = optimal_reduction(lti, 2)
    V, W, V_conj, W_conj = reduced.V, reduced.W, reduced.V_conj, reduced.W_conj
    B, C = np.asarray(lti.B), np.asarray(lti.C)
    np.testing.assert_allclose(W @ V + W_conj @ V_conj.conj(), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(W @ V_conj + W_conj @ V.conj(), 0, atol=1e-9)
    np.testing.assert_allclose(C @ V + (C @ V_conj).conj(), reduced.lti.C, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(W @ B + W_conj @ B.conj(), reduced.lti.B, rtol=1e-2, atol=1e-2)


def test_what_is_exact_is_returned_as_it_is():
    lti = system(0, n=4)
    assert optimal_reduction(lti, 4).lti is lti
    twice = DiagonalLTI(
        np.repeat(lti.log_lam, 2), np.repeat(lti.B, 2, 0), np.repeat(lti.C, 2, 1), lti.D
    )
    reduced = optimal_reduction(twice, 4)
    assert np.isfinite(reduced.bound)
    assert h2_error(twice, reduced.lti) < 1e-6 * h2_error(twice, system(1, n=4))


def test_real_modes_become_pairs_where_that_is_nearer():
    """Eight real modes: two stored states can be four of them, and are at least as good as two."""
    rng = np.random.default_rng(0)
    lti = DiagonalLTI(
        log_lam=-np.geomspace(0.01, 1, 8).astype(complex),
        B=rng.normal(size=(8, 3)).astype(complex),
        C=rng.normal(size=(3, 8)).astype(complex),
        D=np.zeros(3),
    )
    truncated, reduced = balanced_truncation(lti, 2), optimal_reduction(lti, 2)
    assert truncated.order < 4
    assert h2_error(lti, reduced.lti) < h2_error(lti, truncated.lti)


@pytest.mark.parametrize("layer", [LRU, S5])
def test_a_layer_is_cut_to_it_and_moments_follow(layer):
    model = layer.init(d_model=3, d_state=16, key=jax.random.key(0))
    u = jax.random.normal(jax.random.key(1), (8, 64, 3))
    params = eqx.filter(model, eqx.is_inexact_array)
    optimizer = optax.sgd(1.0, momentum=0.9)

    @eqx.filter_jit
    def gradients(model):
        return eqx.filter_grad(lambda m: jnp.mean(jnp.sin(3 * jax.vmap(m)(u))))(model)

    state = optimizer.update(gradients(model), optimizer.init(params), params)[1]
    small, carried = compress(model, state, policy=Rank(10), method=H2Optimal())
    plain = compress(model, policy=Rank(10))[0]
    errors = [h2_error(model.to_lti(), other.to_lti()) for other in (small, plain)]
    assert small.d_state == 10
    assert errors[0] < errors[1]

    def direction(tree):
        leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
        return np.concatenate([np.ravel(x) for x in leaves])

    own, momentum = direction(gradients(small)), direction(carried[0].trace)
    cosine = own @ momentum / np.linalg.norm(own) / np.linalg.norm(momentum)
    assert cosine > 0.9, cosine


def test_the_plan_says_so_and_promises_no_bound():
    model = LRU.init(d_model=3, d_state=16, key=jax.random.key(0))
    planned = plan(model, policy=Rank(4), method=H2Optimal())
    (row,) = planned.layers
    assert row.gramians == "white noise, real, H2-optimal"
    assert np.isinf(row.bound)
    (certificate,) = verify(model, compress(model, plan=planned)[0]).layers
    assert certificate.error >= row.floor * (1 - 1e-6)


def test_it_is_a_method_of_its_own():
    model = LRU.init(d_model=3, d_state=8, key=jax.random.key(0))
    for other in ({"batch": np.ones((2, 5, 3))}, {"plan": plan(model, policy=Rank(4))}):
        with pytest.raises(ValueError, match=r"only one of .* must be given, got .*`method`"):
            compress(model, method=H2Optimal(), **other)
