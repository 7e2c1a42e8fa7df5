"""S5's continuous-time side against a solver of the same ODE."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import S5, Bidirectional


@pytest.fixture
def layer(x64, getkey):
    small = S5.init(3, 5, key=getkey(), step_min=0.05, step_max=0.3)
    return jax.tree.map(lambda x: x.astype(jnp.float64), small)


@pytest.fixture
def intervals(x64):
    return jnp.asarray(np.random.default_rng(0).uniform(0.2, 3.0, 12))


@pytest.fixture
def u(x64):
    return jnp.asarray(np.random.default_rng(1).normal(size=(12, 3)))


@pytest.mark.filterwarnings("ignore:Complex dtype support")
@pytest.mark.parametrize("irregular", [False, True])
def test_s5_solves_its_ode(layer, intervals, u, irregular):
    """x' = step * (Lambda x + B u), each input held over the interval before it."""
    dt = intervals if irregular else jnp.ones(12)
    times = jnp.concatenate([jnp.zeros(1), jnp.cumsum(dt)])
    B = jax.lax.complex(layer.B_re, layer.B_im)

    def rate(t, x, args):
        held = u[jnp.clip(jnp.searchsorted(times, t, side="right") - 1, 0, 11)]
        return jnp.exp(layer.log_step) * (layer.Lambda * x + B @ held)

    controller = diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=1e-10, atol=1e-12), jump_ts=times
    )
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),
        diffrax.Tsit5(),
        t0=0.0,
        t1=times[-1],
        dt0=1e-3,
        y0=jnp.zeros(5, complex),
        saveat=diffrax.SaveAt(ts=times[1:]),
        stepsize_controller=controller,
        max_steps=100_000,
    )
    C = jax.lax.complex(layer.C_re, layer.C_im)
    assert solution.ys is not None
    expected = 2 * jnp.real(solution.ys @ C.T) + layer.D * u
    ours = layer(u, dt=dt) if irregular else layer(u)
    np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-8)


def test_streaming_with_intervals(layer, intervals, u):
    carry, outputs = layer.init_state(), []
    for u_t, dt_t in zip(u, intervals, strict=True):
        carry, y_t = layer.step(carry, u_t, dt_t)
        outputs.append(y_t)
    np.testing.assert_allclose(jnp.stack(outputs), layer(u, dt=intervals), rtol=1e-10)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_unit_intervals_are_none(layer, u, rule):
    layer = S5.from_continuous(
        layer.Lambda,
        jax.lax.complex(layer.B_re, layer.B_im),
        jax.lax.complex(layer.C_re, layer.C_im),
        layer.D,
        layer.log_step,
        discretization=rule,
    )
    np.testing.assert_allclose(layer(u, dt=jnp.ones(12)), layer(u), rtol=1e-10)


def test_backwards_the_interval_is_the_following_one(layer, intervals, u):
    both = Bidirectional(layer, layer)
    following = jnp.roll(intervals, -1)[::-1]
    expected = layer(u, dt=intervals) + layer(u[::-1], dt=following)[::-1]
    np.testing.assert_allclose(both(u, dt=intervals), expected, rtol=1e-10)
