"""Oscillators that are cut: damped ones by anything, undamped ones by data or a finite time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Data, Horizon, Rank, Tolerance, WhiteNoise, compress, plan, verify
from zoo import DLinOSSConfig, LinOSS, LinOSSConfig

H, N = 4, 16


def test_damped_oscillators_keep_their_bound(getkey):
    layer = DLinOSSConfig(N, r_min=0.6, max_phase=1.5).build(H, key=getkey())
    (row,) = plan(layer, policy=Rank(8)).layers
    small = row.cut.after
    assert type(small) is LinOSS
    assert small.d_state == row.rank_after <= 8
    (certificate,) = verify(layer, small).layers
    assert certificate.error <= row.bound
    u = jax.random.normal(getkey(), (300, H))
    error = float(jnp.linalg.norm(layer(u) - small(u)) / jnp.linalg.norm(u))
    assert 0 < error <= row.bound


@pytest.mark.parametrize("scheme", [pytest.param("im", marks=pytest.mark.slow), "imex"])
def test_undamped_oscillators_come_back_damped(scheme, getkey):
    layer = LinOSSConfig(N, scheme=scheme).build(H, key=getkey())
    u = np.asarray(jax.random.normal(getkey(), (4, 60, H)))
    g = np.asarray(jax.random.normal(getkey(), (4, 60, H)))
    small, _ = compress(layer, policy=Rank(13), method=Data(inputs=[u], gradients=[g]))
    assert small.d_state <= 13
    assert not np.any(small.implicit)
    assert np.all(small.oscillators.G > 0)
    before, after = jax.vmap(layer)(u), jax.vmap(small)(u)
    worst = jnp.linalg.norm(before - after) / jnp.linalg.norm(before)
    assert float(worst) < 0.9
    gradient = eqx.filter_grad(lambda m: jnp.sum(m(u[0]) ** 2))(small)
    assert np.any(gradient.G)  # the damping learns from now on


def test_without_any_decay_there_are_no_gramians_of_white_noise(getkey):
    layer = LinOSSConfig(N, scheme="imex").build(H, key=getkey())
    message = (
        r"`method` must be Data\(...\) or Horizon\(...\) for LinOSS, a LinOSS with states that"
    )
    for method in (WhiteNoise(), WhiteNoise("complex")):
        with pytest.raises(ValueError, match=message):
            plan(layer, method=method)
    (row,) = plan(layer, policy=Rank(12), method=Horizon(80)).layers
    assert row.rank_after <= N
    assert np.all(np.isfinite(row.sigma))


def test_values_that_say_nothing_leave_an_undamped_layer_as_it_is(getkey):
    layer = LinOSSConfig(N, scheme="imex").build(H, key=getkey())
    u = np.asarray(jax.random.normal(getkey(), (2, 20, H)))
    silent = Data(inputs=[u], gradients=[np.zeros_like(u)])
    small, _ = compress(layer, policy=Tolerance(0.1), method=silent)
    assert small is layer


def test_moments_follow_the_oscillators(getkey):
    layer = DLinOSSConfig(N, r_min=0.6, max_phase=1.5).build(H, key=getkey())
    u = jax.random.normal(getkey(), (40, H))
    weights = jax.random.normal(getkey(), u.shape)
    optimizer = optax.adam(1e-3)

    def gradient(layer):
        return eqx.filter_grad(lambda m: jnp.sum(weights * m(u)))(layer)

    params = eqx.filter(layer, eqx.is_inexact_array)
    _, state = optimizer.update(gradient(layer), optimizer.init(params), params)
    small, state = compress(layer, state, policy=Rank(12))
    # the first moment is a tenth of the gradient; after the cut, of the small layer's gradient
    for name in ("B", "push", "C", "velocity"):
        ours, true = getattr(state[0].mu, name), 0.1 * getattr(gradient(small), name)
        assert np.linalg.norm(ours - true) < 0.2 * np.linalg.norm(true), name
    assert all(np.all(np.asarray(x) >= 0) for x in jax.tree.leaves(state[0].nu))
