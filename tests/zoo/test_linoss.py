"""Oscillators: their steps, their modes, and the way back from any stable system."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import DiagonalLTI, DLinOSSConfig, LinOSS, LinOSSConfig
from zoo.recurrence.oscillate import Kicks, oscillate, oscillate_once

H, N = 3, 5
KINDS = {
    "im": LinOSSConfig(N, scheme="im"),
    "imex": LinOSSConfig(N, scheme="imex"),
    "damped": DLinOSSConfig(N),
}
EACH = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())


@pytest.mark.parametrize("length", [0, 1, 70])
def test_chunks_are_one_sample_after_the_other(length, getkey):
    kicks = Kicks(jnp.full(N, 0.9), -jnp.linspace(0.1, 1, N), jnp.full(N, 0.5))
    force, push = jax.random.normal(getkey(), (2, length, N))
    s = s0 = jax.random.normal(getkey(), (N, 2))
    expected = [s := oscillate_once(kicks, s, f, p) for f, p in zip(force, push, strict=True)]
    states = oscillate(kicks, force, push, s0)
    assert states.shape == (length, N, 2)
    if length:
        np.testing.assert_allclose(states, jnp.stack(expected), rtol=1e-4, atol=1e-4)


@EACH
def test_the_step_is_the_published_one(config, getkey):
    """z_k and x_k solve the implicit equations of section 3, with A, G and dt within bounds."""
    layer = config.build(H, key=getkey())
    A, G, dt = layer.oscillators
    implicit = bool(layer.implicit.any())
    damping = G - dt * A if implicit else G
    s, u_t = jax.random.normal(getkey(), (N, 2)), jax.random.normal(getkey(), (H,))
    after, _ = layer.step(s, u_t)
    z, x = after[:, 0], after[:, 1]
    seen = x if implicit else s[:, 1]
    force = layer.B @ u_t
    np.testing.assert_allclose(z, s[:, 0] + dt * (-A * seen - damping * z + force), atol=1e-5)
    np.testing.assert_allclose(x, s[:, 1] + dt * z, atol=1e-6)


def test_schemes_lie_where_they_should(getkey):
    radius = {name: np.exp(config.build(H, key=getkey()).to_lti().log_lam.real)
              for name, config in KINDS.items()}  # fmt: skip
    np.testing.assert_allclose(radius["imex"], 1.0, atol=1e-6)
    assert np.all(radius["im"] < 1)
    assert np.all(radius["damped"] >= 0.9 - 1e-5)
    assert {
        name: config.build(H, key=getkey()).keeps_forever for name, config in KINDS.items()
    } == {
        "im": False,
        "imex": True,
        "damped": False,
    }


@EACH
def test_undamped_oscillators_stay_undamped_while_they_train(config, getkey):
    layer = config.build(H, key=getkey())
    u = jax.random.normal(getkey(), (20, H))
    gradient = eqx.filter_grad(lambda m: jnp.sum(m(u) ** 2))(layer)
    assert np.any(gradient.A)
    assert np.any(gradient.G) == isinstance(config, DLinOSSConfig)


def test_parameters_out_of_bounds_count_as_their_bounds(getkey):
    layer = DLinOSSConfig(N).build(H, key=getkey())
    wild = eqx.tree_at(
        lambda m: (m.A, m.G),
        layer,
        (jnp.array([-5.0, 1e4, 0.5, 3.0, -1.0]), layer.G.at[3:].set(-2.0)),
    )
    A, G, dt = wild.oscillators
    root = jnp.sqrt(1 + dt * G)
    assert np.all(G[3:] == 0)
    assert np.all(dt**2 * A >= (root - 1) ** 2 - 1e-5)
    assert np.all(dt**2 * A <= (root + 1) ** 2 + 1e-3)
    assert np.isfinite(wild(jnp.ones((50, H)))).all()


PAIRS = [
    *(-0.1 + 0.5j, -0.01 + 2.0j, -1.0 - 3.0j),
    *(-0.1 - 0.5j, -0.2 - 1e-2j),
    *(-1e-4 + 1e-3j, -1e-5 + 0.1j),
    -6.0 + 1j,
    -1e-7 + 1j,
    *(-0.2 + 0.7j, -0.2 + 0.7j),
]
"""Also of negative angles, slow and fast, close to the circle, repeated."""


@pytest.mark.parametrize("name", ["im", "damped"])
def test_any_stable_pair_is_an_oscillator_at_the_layers_step(name, x64, getkey):
    config, log_lam = KINDS[name], PAIRS
    layer = config.build(H, key=getkey())
    n, rng = len(log_lam), np.random.default_rng(0)
    lti = DiagonalLTI(
        np.array(log_lam),
        rng.normal(size=(n, H)) + 1j * rng.normal(size=(n, H)),
        rng.normal(size=(H, n)) + 1j * rng.normal(size=(H, n)),
        rng.normal(size=H),
    )
    made = layer.from_lti(lti)
    assert jax.tree.structure(made) == jax.tree.structure(layer)
    assert not np.any(made.implicit)
    assert np.all(made.oscillators.G > 0)
    u = rng.normal(size=(60, H))
    expected = lti.simulate(u)
    np.testing.assert_allclose(made(jnp.asarray(u)), expected, atol=1e-6 * np.abs(expected).max())
    again = made.from_lti(made.to_lti())
    for name in ("A", "G", "B", "push", "C", "velocity"):
        np.testing.assert_allclose(getattr(again, name), getattr(made, name), rtol=1e-6, atol=1e-7)


def test_real_modes_are_slow_rotations(x64, getkey):
    layer = DLinOSSConfig(N).build(H, key=getkey())
    rng = np.random.default_rng(0)
    phase = np.exp(0.5j)
    log_lam = np.array([-0.05 + 0j, -0.5 + np.pi * 1j, -1e-3 + 0j])
    b, c = rng.normal(size=(3, H)) * phase, rng.normal(size=(H, 3)) / phase
    lti = DiagonalLTI(log_lam, b, c, np.zeros(H))
    u = rng.normal(size=(200, H))
    expected = lti.simulate(u)
    y = layer.from_lti(lti)(jnp.asarray(u))
    np.testing.assert_allclose(y, expected, atol=1e-3 * np.abs(expected).max())


def test_published_oscillators_are_complex(getkey):
    """Two real oscillators for each complex one, of the same A, G and step."""
    rng = np.random.default_rng(0)
    P = 4
    A, G, steps = rng.uniform(0, 1, P), rng.uniform(0, 1, P), rng.normal(size=P)
    B = rng.normal(size=(P, H)) + 1j * rng.normal(size=(P, H))
    C = rng.normal(size=(H, P)) + 1j * rng.normal(size=(H, P))
    arrays = [jnp.asarray(x) for x in (A, steps, B, C, np.zeros(H), G)]
    layer = LinOSS.from_published(*arrays, scheme="imex")
    assert layer.d_state == 2 * P
    dt = 1 / (1 + np.exp(-steps))
    S = 1 + dt * G
    low, high = ((np.sqrt(S) + sign) ** 2 / dt**2 for sign in (-1, 1))
    A = np.clip(A, low, high)
    z, x, outputs = np.zeros(P, complex), np.zeros(P, complex), []
    u = rng.normal(size=(30, H))
    for u_k in u:
        z = (z - dt * A * x + dt * (B @ u_k)) / S
        x = x + dt * z
        outputs.append(np.real(C @ x))
    np.testing.assert_allclose(layer(jnp.asarray(u)), np.stack(outputs), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="`scheme` must be imex with damping, got 'im'"):
        LinOSS.from_published(*arrays, scheme="im")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinOSSConfig(scheme="ex"), "scheme"),  # pyright: ignore[reportArgumentType]
        (lambda: DLinOSSConfig(r_min=1.0), r"`r_min` must be in \(0, 1\), got 1.0"),
        (lambda: DLinOSSConfig(max_phase=4.0), r"`max_phase` must be in \(0, pi\], got 4.0"),
    ],
)
def test_bad_settings_are_named(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
