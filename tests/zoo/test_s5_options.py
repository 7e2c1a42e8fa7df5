"""The options of the public S5: full, clipped, rescaled, both ways with one set of states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Data, Rank, Tolerance, WhiteNoise, compress, plan
from zoo import S5, Bidirectional, S5BothWays, S5Config, classifier
from zoo.law import check_layer

H, N = 4, 6
U = jax.random.normal(jax.random.key(1), (24, H))
OPTIONS = {
    "full": {"conjugate_pairs": False},
    "clipped": {"clip_eigenvalues": True},
    "rescaled": {"step_rescale": 2.5},
    "all": {
        "conjugate_pairs": False,
        "clip_eigenvalues": True,
        "step_rescale": 0.5,
        "discretization": "bilinear",
    },
}


@pytest.mark.parametrize(
    "name", ["all", *(pytest.param(n, marks=pytest.mark.slow) for n in OPTIONS if n != "all")]
)
def test_every_option_keeps_the_laws(name, getkey):
    layer = S5.init(H, N, key=getkey(), step_max=0.5, **OPTIONS[name])
    check_layer(layer, U)
    assert layer.from_lti(layer.to_lti()).conjugate_pairs == layer.conjugate_pairs


def test_a_full_layer_starts_as_the_half_does(getkey):
    full = S5.init(H, 2 * N, key=getkey(), conjugate_pairs=False)
    ordered = np.sort_complex(np.asarray(full.Lambda))
    np.testing.assert_allclose(ordered, np.sort_complex(np.conj(ordered)), atol=1e-4)


def test_clipped_eigenvalues_are_stable_and_stand_still(getkey):
    layer = S5.init(H, N, key=getkey())
    Lambda = layer.Lambda.at[:2].set(jnp.array([0.3 + 1j, -1e-5 + 2j]))
    parts = (Lambda, jnp.ones((N, H), complex), jnp.ones((H, N), complex), layer.D, layer.log_step)
    with pytest.raises(ValueError, match="`Lambda` must have real parts below 0 without"):
        S5.from_continuous(*parts)
    clipped = S5.from_continuous(*parts, clip_eigenvalues=True)
    np.testing.assert_allclose(jnp.real(clipped.Lambda[:2]), -1e-4, rtol=1e-5)
    np.testing.assert_allclose(jnp.real(clipped.Lambda[2:]), -0.5, rtol=1e-5)


def test_rescaled_steps_are_longer_steps(getkey):
    layer = S5.init(H, N, key=getkey())
    longer = eqx.tree_at(lambda m: m.log_step, layer, layer.log_step + jnp.log(3.0))
    rescaled = S5.init(H, N, key=jax.random.key(0), step_rescale=3.0)
    rescaled = eqx.tree_at(jax.tree.leaves, rescaled, jax.tree.leaves(layer))
    np.testing.assert_allclose(rescaled(U), longer(U), rtol=1e-4, atol=1e-5)
    for bad in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="`step_rescale` must be"):
            S5Config(step_rescale=bad)


def both_ways(key, *, n=N, twice=True):
    return S5Config(d_state=n, step_max=0.5, both_ways=True, current_twice=twice).build(H, key=key)


def plainly(layer, u):
    """Every output from the forward and the backward states, one after the other."""
    lti = layer.one_way.to_lti()
    lam, C = jnp.exp(lti.log_lam), 2 * (layer.C_re + 1j * layer.C_im)
    forward, backward = [], []
    x = jnp.zeros(layer.d_state, complex)
    for u_k in u:
        x = lam * x + lti.B @ u_k
        forward.append(jnp.real(C[:H] @ x))
    x = jnp.zeros(layer.d_state, complex)
    for u_k in u[::-1]:
        before, x = lam * x, lam * x + lti.B @ u_k
        backward.append(jnp.real(C[H:] @ (x if layer.current_twice else before)))
    return jnp.stack(forward) + jnp.stack(backward[::-1]) + layer.D * u


@pytest.mark.parametrize("twice", [True, False])
def test_both_ways_is_its_equations(twice, getkey):
    layer = both_ways(getkey(), twice=twice)
    np.testing.assert_allclose(layer(U), plainly(layer, U), atol=2e-5)
    np.testing.assert_allclose(layer(U, jnp.ones(len(U))), layer(U), atol=2e-5)
    padded = U.at[9:].set(99.0)
    np.testing.assert_allclose(layer(padded, length=9)[:9], layer(U[:9]), atol=2e-5)
    dt = jnp.linspace(0.5, 2.0, len(U))
    if twice:
        pair = Bidirectional(layer.one_way, layer._other_way)
        np.testing.assert_allclose(layer(U, dt), pair(U, dt), atol=2e-5)
    with pytest.raises(ValueError, match="a S5BothWays layer cannot stream"):
        layer.init_state()


@pytest.mark.parametrize("twice", [True, False])
def test_both_ways_comes_back_from_its_system(twice, getkey):
    layer = both_ways(getkey(), twice=twice)
    again = layer.from_lti(layer.to_lti())
    assert jax.tree.structure(again) == jax.tree.structure(layer)
    np.testing.assert_allclose(again(U), layer(U), atol=5e-5)
    with pytest.raises(ValueError, match="must have 4 inputs and 8 outputs for this S5BothWays"):
        layer.from_lti(layer.one_way.to_lti())


@pytest.mark.parametrize("twice", [True, False])
def test_the_bound_holds_for_both_ways(twice, getkey):
    layer = both_ways(getkey(), n=16, twice=twice)
    (row,) = plan(layer, policy=Rank(5), method=WhiteNoise()).layers
    small = row.cut.after
    assert type(small) is S5BothWays
    assert small.d_state == row.rank_after <= 5
    u = jax.random.normal(getkey(), (300, H))
    error = float(jnp.linalg.norm(layer(u) - small(u)))
    assert 0 < error <= row.bound * float(jnp.linalg.norm(u))
    assert row.floor == 0


@pytest.mark.slow
def test_both_ways_shrinks_on_data_with_its_moments(getkey):
    layer = both_ways(getkey(), n=16)
    u = jnp.cumsum(jax.random.normal(getkey(), (6, 40, H)), axis=1)
    lengths = jnp.array([40, 30, 20, 40, 10, 40])
    optimizer = optax.adam(1e-3)

    def loss(layer):
        y = jax.vmap(lambda u, n: layer(u, length=n))(u, lengths)
        return jnp.sum(y[:, :10] ** 2)

    _, state = optimizer.update(eqx.filter_grad(loss)(layer), optimizer.init(layer), layer)
    seen = Data(inputs=[np.asarray(u)], gradients=[np.ones((6, 40, H))], lengths=lengths)
    small, state = compress(layer, state, policy=Tolerance(0.02), method=seen)
    assert small.d_state < 16
    before, after = layer(u[0]), small(u[0])
    assert float(jnp.linalg.norm(before - after) / jnp.linalg.norm(before)) < 0.1
    updates, _ = optimizer.update(eqx.filter_grad(loss)(small), state, small)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))
    with pytest.raises(ValueError, match="`refit` must be None or False"):
        plan(layer, method=Data(inputs=[np.asarray(u)], gradients=False, refit=True))


def test_both_ways_in_a_classifier_reads_padding_from_its_end(getkey):
    config = S5Config(d_state=N, both_ways=True)
    model, state = classifier(
        lambda key: config.build(H, key=key),
        input_kind="real",
        input_size=2,
        classes=3,
        d_model=H,
        blocks=2,
        norm="layer",
        key=getkey(),
    )
    x = jax.random.normal(getkey(), (12, 2))
    logits, _ = model(x[:7], state)
    padded, _ = model(x.at[7:].set(50.0), state, length=7)
    np.testing.assert_allclose(padded, logits, atol=1e-5)
