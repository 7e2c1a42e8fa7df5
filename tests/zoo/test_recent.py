"""Forecasts relative to the level of the last samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LRU, regressor
from zoo.network.recent import FLOOR, Recent

L, H = 30, 4


def forecaster(key, **settings):
    model, state = regressor(
        lambda key: LRU.init(H, 3, key=key),
        input_size=3,
        outputs=4,
        d_model=H,
        blocks=1,
        key=key,
        **{"norm": "layer", "targets": (2, 0), "recent": 8, **settings},
    )
    return eqx.nn.inference_mode(model), state


def test_recent_means_and_deviations_are_weighted_sums(getkey):
    x, dt = np.array(jax.random.normal(getkey(), (L, 3))), np.linspace(0.5, 2, L)
    mean, deviation = Recent(8.0, 3)(jnp.asarray(x), jnp.asarray(dt, jnp.float32))
    times = np.cumsum(dt)
    for k in (0, 1, L - 1):
        weights = np.exp((times[: k + 1] - times[k]) / 8)
        about = np.average(x[: k + 1], axis=0, weights=weights)
        spread = np.average((x[: k + 1] - about) ** 2, axis=0, weights=weights)
        np.testing.assert_allclose(mean[k], about, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(deviation[k], np.sqrt(spread + FLOOR**2), rtol=1e-4)


def test_a_forecast_follows_the_level_and_the_size_of_its_inputs(getkey):
    model, state = forecaster(getkey())
    x = jnp.cumsum(100 * jax.random.normal(getkey(), (L, 3)), axis=0)
    size, level = jnp.array([3.0, 0.5, 2.0]), jnp.array([700.0, -300.0, 50.0])
    y, other = model(x, state)[0][5:], model(size * x + level, state)[0][5:]
    chosen = np.array([2, 0, 2, 0])
    wanted = size[chosen] * y + level[chosen]
    np.testing.assert_allclose(other, wanted, rtol=2e-3, atol=2e-3 * float(jnp.std(wanted)))


@pytest.mark.parametrize("timed", [False, True])
def test_a_forecast_is_streamed(timed, getkey):
    model, state = forecaster(getkey())
    x, dt = jax.random.normal(getkey(), (L, 3)), jnp.linspace(0.5, 2, L)
    carry, found = model.init_state(), []
    for k in range(L):
        carry, y = model.step(carry, x[k], *([dt[k]] if timed else []))
        found.append(y)
    wanted, _ = model(x, state, dt=dt if timed else None)
    np.testing.assert_allclose(jnp.stack(found), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{"targets": None}, {"recent": 0}, {"recent": -1.0}])
def test_a_level_is_for_forecasts_and_needs_samples(settings, getkey):
    with pytest.raises(ValueError, match="`recent` must be above 0, for a forecast"):
        forecaster(getkey(), **settings)
