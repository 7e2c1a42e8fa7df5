"""What holds for every system: random ones, degenerate ones, and those that rounding spoils."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import (
    Ranks,
    WhiteNoise,
    balanced_truncation,
    compress,
    hankel_singular_values,
    hinf_error,
)
from zoo import LRU, S5, DiagonalLTI

N, M = 8, 2  # one shape, so that programs are compiled once

every_form = st.sampled_from(["complex", "real"])
examples = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def systems(draw, least_decay=1e-9):
    """Stable systems of N states: slow, fast, real, negative, equal, clustered, unreachable."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    slowest = draw(st.floats(np.log(least_decay), -1.0))
    decay = np.exp(rng.uniform(slowest, draw(st.floats(slowest, 2.0)), N))
    angle = rng.uniform(-np.pi, np.pi, N)
    angle[: draw(st.integers(0, N))] = draw(st.sampled_from([0.0, np.pi]))
    log_lam = -decay + 1j * angle
    if draw(st.booleans()):
        log_lam[N // 2 :] = log_lam[: N // 2]
    if draw(st.booleans()):
        log_lam *= 1 + 1e-9 * rng.standard_normal(N)
    B, C = (rng.standard_normal((N, M)) + 1j * rng.standard_normal((N, M)) for _ in range(2))
    if draw(st.booleans()):
        B, C = B.real + 0j, C.real + 0j
    B[: draw(st.integers(0, N))] *= draw(st.sampled_from([0.0, 1e-8, 1.0]))
    C[N - draw(st.integers(0, N)) :] *= draw(st.sampled_from([0.0, 1e-8, 1.0]))
    return DiagonalLTI(log_lam, B, C.T, rng.standard_normal(M))


@examples
@given(systems(), st.integers(1, N - 1), every_form)
def test_the_bound_holds_and_the_result_is_stable(lti, rank, form):
    reduced = balanced_truncation(lti, rank, form=form)
    assert np.max(np.real(reduced.lti.log_lam)) < 0
    assert 1 <= reduced.rank <= rank
    gain = hinf_error(lti, DiagonalLTI(lti.log_lam, 0 * lti.B, lti.C, lti.D), form=form)
    rounding = 1e-9 + 1e-14 / -np.max(np.real(lti.log_lam))  # of a pole, by its distance
    error = hinf_error(lti, reduced.lti, form=form)
    assert error <= reduced.bound * (1 + 1e-6) + rounding * gain


@examples
@given(systems(), st.integers(0, 1000), every_form)
def test_a_change_of_basis_changes_nothing(lti, seed, form):
    rng = np.random.default_rng(seed)
    order, scale = rng.permutation(N), np.exp(rng.uniform(-5, 5, N) + 1j * rng.uniform(-3, 3, N))
    B, C = scale[:, None] * lti.B, lti.C / scale
    other = DiagonalLTI(lti.log_lam[order], B[order], C[:, order], lti.D)
    sigma, again = (hankel_singular_values(x, form=form) for x in (lti, other))
    np.testing.assert_allclose(again, sigma, rtol=1e-9, atol=1e-13 * sigma[0])
    if form == "real":  # conjugate states are the same real map
        mirrored = DiagonalLTI(lti.log_lam.conj(), lti.B.conj(), lti.C.conj(), lti.D)
        again = hankel_singular_values(mirrored, form=form)
        np.testing.assert_allclose(again, sigma, rtol=1e-9, atol=1e-13 * sigma[0])


@examples
@given(systems(), every_form)
def test_rank_n_is_the_identity(lti, form):
    assert eqx.tree_equal(balanced_truncation(lti, N, form=form).lti, lti)


@eqx.filter_jit
def updated(layer, u):
    """Whether the layer, its gradient, and what AdamW makes of them are finite."""
    grads = eqx.filter_grad(lambda m: jnp.mean(m(u) ** 2))(layer)
    optimizer = optax.adamw(1e-3, weight_decay=0.1)
    params = eqx.filter(layer, eqx.is_inexact_array)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    after = eqx.apply_updates(layer, updates)
    leaves = [*jax.tree.leaves(layer), *jax.tree.leaves(grads), *jax.tree.leaves(after)]
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves if eqx.is_inexact_array(x)])


@settings(max_examples=25, deadline=None, derandomize=True)  # each rank is compiled anew
@given(
    systems(least_decay=1e-6), st.sampled_from([1, 3]), every_form, st.sampled_from(["lru", "s5"])
)
def test_parameters_and_gradients_stay_finite(lti, rank, form, kind):
    key = jax.random.key(0)
    start = {"lru": LRU.init, "s5": S5.init}[kind](M, N, key=key)
    layer = start.from_lti(jax.tree.map(lambda x: jnp.asarray(x.astype(_single(x))), lti))
    small, _ = compress(layer, policy=Ranks(rank), method=WhiteNoise(form))
    assert np.max(np.real(small.to_lti().log_lam)) < 0
    assert np.all(updated(small, jnp.linspace(-1, 1, 20 * M).reshape(20, M)))


def _single(x):
    return np.complex64 if np.iscomplexobj(x) else np.float32
