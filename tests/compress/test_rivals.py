"""Methods to compare with: their scores against brute force, and what their cuts keep."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

from compress import (
    LAST,
    AcrossLayers,
    ImpulseEnergy,
    Rank,
    ShallowFirst,
    compress,
    hinf_error,
    plan,
)
from compress.linear.modes import layer_adapted, mode_energies, mode_gains
from compress.linear.system import double_lti
from zoo import LRU, S5, MambaConfig

METHODS = [LAST(), ImpulseEnergy()]


def layers(key):
    return [LRU.init(d_model=3, d_state=12, key=key), S5.init(d_model=3, d_state=12, key=key)]


def test_a_modes_gain_is_the_largest_of_its_frequency_response(getkey):
    for layer in layers(getkey()):
        lti = double_lti(layer)
        lam, B, C = np.exp(lti.log_lam), np.asarray(lti.B), np.asarray(lti.C)
        for k, gain in enumerate(mode_gains(lti)):
            near = np.angle(lam[k]) + np.linspace(-1e-3, 1e-3, 2001)
            w = np.concatenate([np.linspace(-np.pi, np.pi, 5001), near])
            response = np.outer(C[:, k], B[k])[None] / (1 - lam[k] * np.exp(-1j * w))[:, None, None]
            largest = np.max(np.linalg.norm(response, ord=2, axis=(1, 2)))
            assert gain == pytest.approx(largest, rel=1e-6)


def test_a_modes_energy_is_the_sum_over_its_impulse_response(getkey):
    for layer in layers(getkey()):
        lti = double_lti(layer)
        lam, B, C = np.exp(lti.log_lam), np.asarray(lti.B), np.asarray(lti.C)
        powers = np.abs(lam[:, None]) ** (2 * np.arange(100_000))
        for k, energy in enumerate(mode_energies(lti)):
            brute = np.sum(np.abs(np.outer(C[:, k], B[k])) ** 2) * np.sum(powers[k])
            assert energy == pytest.approx(brute, rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "adapted"),
    [
        ([4.0, 1.0, 3.0], [1.0, 1 / 8, 3 / 7]),
        ([2.0, 2.0], [1.0, 0.5]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([5.0], [1.0]),
    ],
)
def test_scores_are_shares_of_what_is_not_smaller(scores, adapted):
    np.testing.assert_allclose(layer_adapted(np.array(scores)), adapted)


@pytest.mark.parametrize("method", METHODS)
def test_a_cut_keeps_the_best_modes_as_they_are(method, getkey):
    for layer in layers(getkey()):
        scores = method.scores(double_lti(layer))
        kept = np.sort(np.argsort(-scores)[:5])
        opt_state = optax.adam(1e-3).init(eqx.filter(layer, eqx.is_inexact_array))
        marked = jax.tree.map(
            lambda x: jax.random.normal(getkey(), x.shape) if x.ndim else x, opt_state
        )
        small, state = compress(layer, marked, policy=Rank(5), method=method)
        before, after = double_lti(layer), double_lti(small)
        np.testing.assert_allclose(after.log_lam, before.log_lam[kept], rtol=1e-5)
        np.testing.assert_allclose(after.B, before.B[kept], rtol=1e-4, atol=1e-6)
        (row,) = plan(layer, policy=Rank(5), method=method).layers
        assert hinf_error(before, after) <= row.bound * (1 + 1e-5)
        assert np.isfinite(row.bound)
        # what is kept is kept: so are its moments
        name = "theta_log" if isinstance(layer, LRU) else None
        if name is not None:
            ours, theirs = getattr(state[0].mu, name), getattr(marked[0].mu, name)
            np.testing.assert_allclose(ours, theirs[kept], rtol=1e-4)


def test_layers_of_mamba_have_no_modes_of_their_own(getkey):
    layer = MambaConfig(d_state=4).build(4, key=getkey())
    with pytest.raises(ValueError, match="`method` must be Data"):
        plan(layer, method=LAST())


SIGMAS = [np.array([1.0, 0.5, 0.2, 0.1]), np.array([1.0, 0.9, 0.05]), np.array([1.0, 0.3])]


@pytest.mark.parametrize(
    ("policy", "ranks"),
    [
        (AcrossLayers(9), [4, 3, 2]),
        (AcrossLayers(6), [2, 2, 2]),
        (AcrossLayers(4), [1, 2, 1]),
        (AcrossLayers(3), [1, 1, 1]),
        (ShallowFirst(9), [4, 3, 2]),
        (ShallowFirst(7), [2, 3, 2]),
        (ShallowFirst(5), [1, 2, 2]),
        (ShallowFirst(8, rank=3), [3, 3, 2]),
        (ShallowFirst(7, rank=2), [2, 3, 2]),
    ],
)
def test_how_a_number_of_states_is_spent(policy, ranks):
    assert list(policy.choose(SIGMAS, lambda _: None)) == ranks


@pytest.mark.parametrize(
    ("policy", "named"),
    [(AcrossLayers(2), "`states`"), (ShallowFirst(2), "`states`"), (ShallowFirst(5, 3), "`rank`")],
)
def test_numbers_that_do_not_fit_are_named(policy, named):
    with pytest.raises(ValueError, match=named):
        policy.choose(SIGMAS, lambda _: None)
