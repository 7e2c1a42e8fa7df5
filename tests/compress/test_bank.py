"""Banks of systems: every channel cut as if it were alone, all to one number of states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import (
    Data,
    ErrorBudget,
    H2Optimal,
    Rank,
    Tolerance,
    WhiteNoise,
    compress,
    plan,
    verify,
)
from compress.linear.balance import truncate
from compress.linear.bank import double_bank
from compress.model.record import LayerData
from zoo import S4D, S5, DiagonalLTI
from zoo.layers.base import as_linear

H, N = 3, 8


@pytest.fixture
def layer(getkey):
    """Channels that differ in size and in memory."""
    layer = S4D.init(H, N, key=getkey(), step_min=0.02, step_max=0.5, start="legs")
    scale = jnp.array([1.0, 0.3, 3.0])[:, None]
    return eqx.tree_at(lambda m: m.C_re, layer, scale * layer.C_re)


def alone(layer, h):
    """Channel h as an S5 of one channel."""
    row = slice(h, h + 1)
    return S5.from_continuous(
        layer.Lambda[h],
        (layer.B_re + 1j * layer.B_im)[h][:, None],
        (layer.C_re + 1j * layer.C_im)[row],
        layer.D[row],
        jnp.full(layer.d_state, layer.log_step[h]),
    )


def near(ours, theirs, **how):
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, **how)


@pytest.mark.parametrize("method", [WhiteNoise(), WhiteNoise("complex"), H2Optimal()], ids=repr)
def test_channels_are_cut_as_if_they_were_alone(layer, method, getkey):
    small, _ = compress(layer, policy=Rank(4), method=method)
    assert type(small) is S4D
    assert small.d_state <= 4
    u = jax.random.normal(getkey(), (60, H))
    y = small(u)
    for h in range(H):
        own, _ = compress(alone(layer, h), policy=Rank(4), method=method)
        np.testing.assert_allclose(y[:, h], own(u[:, h : h + 1])[:, 0], rtol=2e-3, atol=2e-3)


def test_the_bound_is_that_of_the_worst_channel(layer, getkey):
    (row,) = plan(layer, policy=Rank(3)).layers
    small = row.cut.after
    assert 0 < row.floor <= row.bound < np.inf
    assert row.sigma.shape == (N,)
    u = jax.random.normal(getkey(), (200, H))
    error = np.linalg.norm(layer(u) - small(u), axis=0) / np.linalg.norm(u, axis=0)
    assert 0 < error.max() <= row.bound
    sums = sum(plan(alone(layer, h), policy=Rank(3)).layers[0].sigma for h in range(H))
    np.testing.assert_allclose(row.sigma, sums, rtol=1e-6)


def test_an_error_budget_is_kept(layer):
    budget = 0.5
    (row,) = plan(layer, policy=ErrorBudget(budget)).layers
    assert row.rank_after < N
    assert row.bound <= budget * row.sigma[0] * (1 + 1e-6)


def test_nothing_changes_at_full_rank(layer):
    same, state = compress(layer, None, policy=Rank(N))
    assert same is layer
    assert state is None


def test_data_weigh_every_channel_by_its_own_inputs(layer, getkey):
    u = np.asarray(jnp.cumsum(jax.random.normal(getkey(), (5, 40, H)), axis=1))
    g = np.asarray(jax.random.normal(getkey(), u.shape))
    lengths = np.array([40, 30, 40, 20, 10])
    for gradients in (False, [g]):
        how = Data(inputs=[u], gradients=gradients, lengths=lengths, refit=True)
        small, _ = compress(layer, policy=Rank(3), method=how)
        y = jax.vmap(small)(u)
        for h in range(H):
            one = [g[..., h : h + 1]] if gradients else False
            own = Data(inputs=[u[..., h : h + 1]], gradients=one, lengths=lengths, refit=True)
            expected = jax.vmap(compress(alone(layer, h), policy=Rank(3), method=own)[0])
            expected = expected(u[..., h : h + 1])[..., 0]
            scale = np.abs(expected).max()
            np.testing.assert_allclose(y[..., h], expected, atol=2e-3 * scale)


def test_moments_are_those_of_the_channels_alone(layer, getkey):
    """Adam's moments after the cut, against those of each channel as an S5 of its own."""
    u = jax.random.normal(getkey(), (30, H))
    weights = jax.random.normal(getkey(), u.shape)
    optimizer = optax.adam(1e-3)

    def moments(layer, u, weights):
        grads = eqx.filter_grad(lambda m: jnp.sum(weights * m(u)))(layer)
        return optimizer.update(grads, optimizer.init(layer), layer)[1]

    small, state = compress(layer, moments(layer, u, weights), policy=Rank(4))
    mu, nu = state[0].mu, state[0].nu
    for h in range(H):
        row = slice(h, h + 1)
        one = alone(layer, h)
        # without the step sizes, which a channel of the bank shares
        given = moments(one, u[:, row], weights[:, row])
        own, after = compress(one, given, policy=Rank(4))
        for name in ("C_re", "C_im"):
            x, y = getattr(mu, name)[h], getattr(after[0].mu, name)[0]
            scale = np.abs(y).max()
            np.testing.assert_allclose(x[: len(y)], y, atol=0.02 * scale)
            assert np.all(getattr(nu, name)[h] >= 0)
        assert own.d_state <= small.d_state
    assert jax.tree.structure(mu) == jax.tree.structure(small)
    assert [x.shape for x in jax.tree.leaves(nu)] == [x.shape for x in jax.tree.leaves(small)]


def test_copies_of_the_parameters_follow(layer):
    average = eqx.tree_at(lambda m: (m.C_re, m.C_im), layer, (0.9 * layer.C_re, 0.9 * layer.C_im))
    small, (copied,) = compress(layer, (average,), policy=Rank(4))
    assert copied.d_state == small.d_state
    u = jnp.ones((40, H))
    np.testing.assert_allclose(copied(u) - u * copied.D, 0.9 * (small(u) - u * small.D), atol=1e-4)


def test_stacks_keep_one_number_of_states(getkey):
    keys = jax.random.split(getkey(), 2)
    stack = eqx.filter_vmap(lambda key: S4D.init(H, N, key=key))(keys)
    small, _ = compress(stack, policy=Tolerance(0.05))
    assert small.C_re.shape[0] == 2
    assert small.C_re.shape[2] < N


def test_a_channel_without_output_is_filled_up(layer):
    silent = eqx.tree_at(
        lambda m: (m.C_re, m.C_im), layer, (layer.C_re.at[1].set(0), layer.C_im.at[1].set(0))
    )
    small, _ = compress(silent, policy=Rank(4))
    assert small.d_state == 4
    u = jnp.ones((30, H))
    np.testing.assert_allclose(small(u)[:, 1], silent.D[1] * u[:, 1], atol=1e-5)


@pytest.mark.parametrize("form", ["real", "complex"])
def test_every_channel_is_verified(layer, form):
    small, _ = compress(layer, policy=Rank(4), method=WhiteNoise(form))
    (found,) = verify(layer, small, form=form).layers
    assert found.holds
    assert len(found.channels) == H
    for h, channel in enumerate(found.channels):
        (own,) = verify(alone(layer, h), alone(small, h), form=form).layers
        for name in ("floor", "error", "bound"):
            np.testing.assert_allclose(getattr(channel, name), getattr(own, name), rtol=1e-5)
    assert found.error == max(channel.error for channel in found.channels)
    assert found.floor * (1 - 1e-6) <= found.error + found.rounding
    (same,) = verify(layer, layer, form=form).layers
    assert same.holds
    assert same.bound == 0


def test_one_bad_channel_makes_the_layer_bad(layer):
    small, _ = compress(layer, policy=Rank(4))
    bad = eqx.tree_at(lambda m: m.C_re, small, small.C_re.at[1].multiply(-20))
    (found,) = verify(layer, bad).layers
    assert [channel.holds for channel in found.channels] == [True, False, True]
    assert not found.holds


def test_a_channel_that_would_be_unstable_drops_a_share_of_its_own_values(layer, monkeypatch):
    """Its values by white noise are in other units than those of data."""
    u = 1e-3 * np.asarray(jax.random.normal(jax.random.key(2), (4, 12, H)))
    method, data = Data(inputs=[u], gradients=[u]), LayerData(u, u, None)

    def unstable_by_data(*args, svd, **settings):
        cut = truncate(*args, svd=svd, **settings)
        return eqx.tree_at(lambda cut: cut.radius, cut, 1.0 if svd.sigma[0] < 1e-2 else 0.5)

    monkeypatch.setattr("compress.linear.bank.truncate", unstable_by_data)
    spectrum = method.spectrum("layer", layer, data)
    assert spectrum.raised(2, 0.1 * spectrum.sigma.sum()) < N
    said = spectrum.planned("", 4).gramians
    assert said.endswith("3 of 3 channels by white noise, real: they would be unstable")


def test_what_needs_one_system_says_so(layer):
    with pytest.raises(ValueError, match="got a S4D, which has one for each channel"):
        as_linear(layer)
    assert all(isinstance(lti, DiagonalLTI) for lti in double_bank(layer))
