"""Laws that every layer of the zoo obeys."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LAYERS, LRU, S5, Bidirectional, DiagonalLTI, LRUConfig, S5Config, layer_config

MAKERS = {
    "lru": lambda key, n=12: LRU.init(4, n, key=key),
    "s5": lambda key, n=12: S5.init(4, n, key=key, hippo_blocks=2, step_max=0.5),
    "s5 bilinear": lambda key, n=12: S5.init(
        4, n, key=key, step_max=0.5, discretization="bilinear"
    ),
}
ALL = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


@pytest.fixture
def u():
    return jax.random.normal(jax.random.key(7), (150, 4))


@ALL
def test_streaming_equals_the_parallel_call(make, u, getkey):
    layer = make(getkey())
    carry, outputs = layer.init_state(), []
    step = eqx.filter_jit(lambda layer, carry, u_t: layer.step(carry, u_t))
    for u_t in u:
        carry, y_t = step(layer, carry, u_t)
        outputs.append(y_t)
    np.testing.assert_allclose(jnp.stack(outputs), layer(u), rtol=2e-5, atol=2e-5)


@ALL
def test_the_lti_is_the_layer(make, u, getkey):
    layer = make(getkey())
    np.testing.assert_allclose(layer.to_lti().simulate(u), layer(u), rtol=1e-5, atol=1e-5)


@ALL
def test_from_lti_inverts_to_lti(make, u, getkey):
    layer = make(getkey())
    again = layer.from_lti(layer.to_lti())
    assert jax.tree.structure(again) == jax.tree.structure(layer)
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(layer), strict=True):
        assert (ours.dtype, ours.shape, ours.weak_type) == (
            theirs.dtype,
            theirs.shape,
            theirs.weak_type,
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(again(u), layer(u), rtol=1e-5, atol=2e-5)


@ALL
@pytest.mark.parametrize(
    "log_lam",
    [
        pytest.param([-0.1 + 0j, -0.2 + 0j], id="positive real"),
        pytest.param([-0.1 + np.pi * 1j, -0.5 + 1j], id="negative real"),
        pytest.param([0j, 1e-12 + 1j], id="on the circle by rounding"),
        pytest.param([-0.1 + 0.5j, -0.1 + 0.5j], id="repeated"),
        pytest.param([-0.3 - 2j], id="one state"),
        pytest.param([-25 + 0j, -1e-5 + 1e-9j], id="fast and slow"),
    ],
)
def test_from_lti_leaves_no_holes(make, log_lam, u, getkey):
    """Any stable system becomes a layer that computes it, with finite parameters and gradients."""
    n = len(log_lam)
    rng = np.random.default_rng(0)
    lti = DiagonalLTI(
        np.array(log_lam),
        rng.normal(size=(n, 4)) + 1j * rng.normal(size=(n, 4)),
        rng.normal(size=(4, n)) + 1j * rng.normal(size=(4, n)),
        rng.normal(size=4),
    )
    layer = make(getkey()).from_lti(lti)
    assert layer.d_state == n
    assert float(layer.to_lti().spectral_radius()) < 1
    expected = np.asarray(lti.simulate(u))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(layer(u), expected, atol=5e-4 * scale)
    grads = jax.jit(jax.grad(lambda layer: jnp.sum(layer(u) ** 2)))(layer)
    for leaf in [*jax.tree.leaves(layer), *jax.tree.leaves(grads)]:
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1e-3, 3.0, -1e-4])
def test_lru_angles_keep_a_gradient(angle, u, getkey):
    """theta_log of a real eigenvalue is neither -inf nor where d theta / d theta_log vanishes."""
    one = np.ones((1, 1)) + 0.5j
    lti = DiagonalLTI(np.array([-0.05 + 1j * angle]), one, one, np.ones(1))
    layer = LRU.init(1, 1, key=getkey()).from_lti(lti)
    theta = float(jnp.exp(layer.theta_log[0]))
    assert 0.99e-3 <= theta <= 2 * np.pi + 1.01e-3
    assert np.isclose(np.exp(1j * theta), np.exp(1j * angle), atol=2e-6)


@ALL
def test_an_lti_that_does_not_fit_is_refused(make, getkey):
    layer = make(getkey())
    lti = layer.to_lti()
    narrow = DiagonalLTI(lti.log_lam, lti.B[:, :3], lti.C[:3], lti.D[:3])
    with pytest.raises(ValueError, match=r"`lti` must have . inputs and outputs .*got 3 and 3"):
        layer.from_lti(narrow)
    with pytest.raises(ValueError, match=r"`lti.D` must be a vector"):
        layer.from_lti(DiagonalLTI(lti.log_lam, lti.B, lti.C, jnp.diag(lti.D)))


@ALL
def test_bidirectional_sees_both_ways(make, u, getkey):
    layer = Bidirectional(make(getkey()), make(getkey()))
    y = layer(u)
    np.testing.assert_allclose(
        y, layer.forward(u) + layer.backward(u[::-1])[::-1], rtol=1e-6, atol=1e-6
    )
    moved = layer(u.at[100].add(1.0)) - y
    assert np.abs(moved[:100]).max() > 1e-3
    assert np.abs(moved[101:]).max() > 1e-3


def test_lru_starts_on_its_ring(getkey):
    layer = LRU.init(2, 2000, key=getkey(), r_min=0.9, r_max=0.99, max_phase=np.pi / 2)
    radius = np.exp(-np.exp(layer.nu_log))
    angle = np.exp(layer.theta_log)
    assert 0.9 <= radius.min() < 0.91 < 0.98 < radius.max() <= 0.99
    assert 0 < angle.min() < 0.1 < 1.5 < angle.max() <= np.pi / 2
    # white noise of variance one leaves every state a variance of H * E|B|^2 = 1
    B = layer.to_lti().B
    variance = jnp.sum(jnp.abs(B) ** 2, axis=1) / (1 - radius**2)
    assert abs(float(variance.mean()) - 1) < 0.1


def test_s5_starts_as_hippo(getkey):
    layer = S5.init(2, 8, key=getkey(), step_min=1e-3, step_max=1e-1)
    size = 16
    n = np.arange(size)
    P = np.sqrt(n + 0.5)
    A = -np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) - np.diag(n + 1.0)
    expected = np.linalg.eigvals(A + np.outer(P, P))  # HiPPO-LegS and its low-rank term
    stored = np.asarray(layer.Lambda)
    np.testing.assert_allclose(
        np.sort(np.concatenate([stored.imag, -stored.imag])), np.sort(expected.imag), atol=1e-4
    )
    np.testing.assert_allclose(stored.real, -0.5, rtol=1e-6)
    steps = np.exp(layer.log_step)
    assert steps.min() >= 1e-3
    assert steps.max() <= 1e-1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LRU.init(2, 3, key=jax.random.key(0), r_min=0.9, r_max=1.0), "got 0.9 and 1.0"),
        (lambda: LRU.init(2, 3, key=jax.random.key(0), max_phase=7.0), "at most 2 pi, got 7.0"),
        (
            lambda: S5.init(2, 3, key=jax.random.key(0), hippo_blocks=2),
            "`hippo_blocks` must divide d_state=3, got 2",
        ),
        (
            lambda: S5.init(2, 3, key=jax.random.key(0), step_min=0.0),
            "`step_min` and `step_max` must be 0 <",
        ),
        (lambda: LRUConfig(d_state=0), "`d_state` must be 1 or more, got 0"),
        (lambda: S5Config(hippo_blocks=0), "`hippo_blocks` must divide d_state=64, got 0"),
        (
            lambda: layer_config("mamba3"),
            rf"one of {', '.join(sorted(LAYERS))}, got 'mamba3': did you mean 'mamba'",
        ),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("make", [LRU.init, S5.init])
def test_layers_made_in_double_precision_are_of_it_and_stream(make, x64, getkey):
    layer = make(3, 4, key=getkey())
    assert {x.dtype for x in jax.tree.leaves(layer)} == {jnp.dtype("float64")}
    u = jax.random.normal(getkey(), (10, 3))
    carry, y = jax.lax.scan(lambda x, u_t: layer.step(x, u_t), layer.init_state(), u)
    assert carry.dtype == jnp.complex128
    np.testing.assert_allclose(y, layer(u), atol=1e-10)


def test_the_carry_of_s5_is_as_wide_as_its_widest_part(x64, getkey):
    layer = jax.tree.map(lambda x: x.astype(jnp.float32), S5.init(3, 4, key=getkey()))
    wide = eqx.tree_at(lambda m: m.log_step, layer, layer.log_step.astype(jnp.float64))
    u = jax.random.normal(getkey(), (10, 3), jnp.float32)
    for each, dtype in ((layer, jnp.complex64), (wide, jnp.complex128)):
        carry, _ = jax.lax.scan(lambda x, u_t, m=each: m.step(x, u_t), each.init_state(), u)
        assert carry.dtype == each.init_state().dtype == dtype
