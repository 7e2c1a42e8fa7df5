"""Linear attention cut on data: exact where nothing is lost, and what follows a cut follows it."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Data, Ranks, Tolerance, compress, plan
from compress.attention.cut import KeyBasis, KeysCut, fold
from compress.attention.moments import key_moments
from compress.optimizer.carry import MODES
from zoo import GLA, LRU, DeltaNet, GatedDeltaNet, RetNet
from zoo.law import check_layer

H, K, LENGTH, SEQUENCES = 6, 8, 24, 3

LAYERS = {
    "gla": lambda key: GLA.init(H, K, key=key),
    "retnet": lambda key: RetNet.init(H, K, key=key, expand=1),
    "retnet behind a convolution": lambda key: RetNet.init(H, K, key=key, expand=1, d_conv=3),
    "deltanet": lambda key: DeltaNet.init(H, K, key=key, d_conv=3),
    "gated deltanet": lambda key: GatedDeltaNet.init(
        H, K, key=key, heads=2, key_heads=1, expand=1, d_conv=3, conv_bias=True
    ),
}
QUICK = [
    name if name == "gated deltanet" else pytest.param(name, marks=pytest.mark.slow)
    for name in LAYERS
]
"""All of them, in the quick suite one."""

MAPPED = ("retnet behind a convolution", "deltanet", "gated deltanet")
"""Those that get maps."""


def made(name: str, seed: int = 0):
    return LAYERS[name](jax.random.key(seed))


def inputs(seed: int = 1):
    return np.random.default_rng(seed).standard_normal((SEQUENCES, LENGTH, H), np.float32)


@eqx.filter_jit
def run(layer, u):
    return jax.vmap(layer)(u)


def outputs(layer, u):
    return np.asarray(run(layer, jnp.asarray(u)))


@eqx.filter_jit
@eqx.filter_grad
def gradient(layer, u):
    return jnp.sum(jnp.sin(jax.vmap(layer)(u)) * jnp.cos(jnp.arange(H)))


def cut(layer, rank, state=None, maps=None, **settings):
    method = Data(inputs(), maps=maps)
    return compress(layer, state, policy=Ranks(rank), method=method, **settings)


def test_moments_are_those_of_the_states_sample_by_sample():
    layer, u = made("gated deltanet"), inputs().astype(np.float64)
    g = np.random.default_rng(7).standard_normal(u.shape)
    lengths = np.array([LENGTH, 11, 1])
    found = key_moments(layer, u, g, lengths)
    P, Q, parts = np.zeros((K, K)), np.zeros((K, K)), np.zeros((K, K))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), layer)
        for row, n in enumerate(lengths):
            q, k, v, log_decay, beta, gate = wide.signals(jnp.asarray(u[row]))
            S = np.zeros((2, K, v.shape[-1]))
            for t in range(n):
                k_t, b = np.asarray(k[t, 0]), np.asarray(beta[t])[:, None]
                S = np.exp(log_decay[t])[:, :, None] * (
                    S - b[..., None] * k_t[:, None] * (k_t @ S)[:, None]
                )
                S = S + b[..., None] * k_t[:, None] * np.asarray(v[t])[:, None]
                o = np.einsum("hkv,k->hv", S, q[t, 0])
                back = jax.vjp(partial(wide.emit, gate=gate[t]), jnp.asarray(o))[1]
                (do,) = map(np.asarray, back(jnp.asarray(g[row, t])))
                P += np.einsum("hkv,hlv->kl", S, S)
                Q += np.outer(q[t, 0], q[t, 0]) * np.sum(do**2)
                c = np.asarray(q[t, 0]) * np.einsum("hkv,hv->hk", S, do)
                parts += c.T @ c
    for moments, expected in ((found.P, P), (found.Q, Q), (found.parts, parts)):
        expected = expected / lengths.sum()
        np.testing.assert_allclose(moments[0], expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("name", QUICK)
def test_a_cut_layer_keeps_the_laws(name):
    small, _ = cut(made(name), 3)
    assert small.d_state == 3
    assert (small.qkv.maps is not None) == (name in MAPPED)
    check_layer(small, inputs(2)[0])


def test_the_folded_cut_of_all_keys_changes_nothing_but_the_basis():
    layer, u = made("retnet"), inputs(2)
    U = np.linalg.qr(np.random.default_rng(3).standard_normal((2, K, K)))[0] * np.linspace(
        0.5, 2, K
    )
    W = np.swapaxes(np.linalg.inv(U), 1, 2)
    expected = outputs(layer, u)
    same = fold(layer, KeyBasis(U, W))
    np.testing.assert_allclose(outputs(same, u), expected, atol=2e-5 * expected.std())


def test_the_error_of_a_folded_cut_is_that_of_the_dropped_part():
    """q^T (I - U W^T) S, sample by sample: in the heads' outputs, in front of the norm."""
    layer, u = made("retnet"), inputs(2)
    small, _ = cut(layer, 5)
    planned = plan(layer, policy=Ranks(5), method=Data(inputs()))
    made_by = planned.layers[0].cut
    assert isinstance(made_by, KeysCut)
    basis = made_by.basis
    one = layer.signals(jnp.asarray(u[0]))
    less = small.signals(jnp.asarray(u[0]))
    np.testing.assert_allclose(less.k, np.einsum("lgk,gkr->lgr", one.k, basis.W), atol=1e-5)
    S, reduced = np.zeros((2, K, 3)), np.zeros((2, 5, 3))
    for t in range(LENGTH):
        decay = np.exp(one.log_decay[t])[:, :, None]
        S = decay * S + np.einsum("hk,hv->hkv", one.k[t], one.v[t])
        reduced = decay * reduced + np.einsum("hk,hv->hkv", less.k[t], less.v[t])
        whole, part = (np.einsum("hkv,hk->hv", *x) for x in ((S, one.q[t]), (reduced, less.q[t])))
        left = np.eye(K) - np.einsum("hkr,hlr->hkl", basis.U, basis.W)
        dropped = np.einsum("hk,hkl,hlv->hv", one.q[t], left, S)
        np.testing.assert_allclose(whole - part, dropped, atol=1e-5)


def narrow(name: str):
    """A layer whose queries and keys lie in half of their dimensions, in no special basis."""
    layer = made(name)
    rng = np.random.default_rng(5)
    projector = np.linalg.qr(rng.standard_normal((K, K // 2)))[0]
    projector = projector @ projector.T
    return layer.map_keys(*[lambda rows: jnp.einsum("kl,gl...->gk...", projector, rows)] * 3)


@pytest.mark.parametrize("name", ["retnet", "deltanet bare"])
def test_keys_that_are_not_there_cost_nothing(name):
    if name == "retnet":
        layer = narrow(name)
    else:  # behind maps, so that any basis can be written there
        opened = made("deltanet").with_maps()
        projector = np.linalg.qr(np.random.default_rng(5).standard_normal((K, K // 2)))[0]
        both = projector @ projector.T
        layer = opened.map_keys(*[lambda rows: jnp.einsum("kl,gl...->gk...", both, rows)] * 3)
    small, _ = cut(layer, K // 2)
    expected = outputs(layer, inputs(2))
    np.testing.assert_allclose(outputs(small, inputs(2)), expected, atol=1e-4 * expected.std())
    found = plan(layer, policy=Tolerance(1e-4), method=Data(inputs()))
    assert found.layers[0].rank_after == K // 2


@pytest.mark.parametrize("name", ["gla", "deltanet", "gated deltanet"])
def test_silent_keys_are_the_ones_that_go(name):
    """Keys that are never written or never asked for, selected away; a decay of theirs goes too."""
    layer = made(name)
    dead = np.array([1, 2, 5, 6])

    def silent(rows):
        return jnp.asarray(rows).at[:, dead].set(0)

    layer = layer.map_keys(q=silent, k=silent if name != "gla" else lambda x: x, decay=lambda x: x)
    small, _ = cut(layer, K // 2, maps=False)
    assert small.qkv.maps is None
    expected = outputs(layer, inputs(2))
    np.testing.assert_allclose(outputs(small, inputs(2)), expected, atol=2e-5 * expected.std())


def test_maps_lose_less_than_a_selection():
    layer, u = made("gated deltanet"), inputs()
    expected = outputs(layer, u)
    errors = [
        np.mean((outputs(cut(layer, 4, maps=maps)[0], u) - expected) ** 2) for maps in (True, False)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("name", ["retnet", "gla"])
def test_a_change_of_basis_carries_gradients_exactly(name):
    layer, u = made(name), jnp.asarray(inputs(4))
    rng = np.random.default_rng(3)
    if name == "gla":
        order = [rng.permutation(K) for _ in range(2)]
        basis = KeyBasis.selection(order, K)
    else:
        U = np.linalg.qr(rng.standard_normal((2, K, K)))[0] * np.linspace(0.5, 2, K)
        basis = KeyBasis(U, np.swapaxes(np.linalg.inv(U), 1, 2))
    other = fold(layer, basis)
    leaves = dict(enumerate(map(np.asarray, jax.tree.leaves(gradient(layer, u)))))
    carried = KeysCut(layer, other, basis)._through(leaves, basis.U, basis.W)
    expected = jax.tree.leaves(gradient(other, u))
    for k, x in enumerate(expected):
        x_carried = carried.get(k, leaves[k])
        np.testing.assert_allclose(x_carried, x, atol=1e-4 * np.abs(x).max())


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("deltanet", "transport"),
        *(
            pytest.param(name, mode, marks=pytest.mark.slow)
            for name in LAYERS
            for mode in MODES
            if (name, mode) != ("deltanet", "transport")
        ),
    ],
)
def test_the_optimizer_state_fits(name, mode):
    layer, u = made(name), jnp.asarray(inputs(4))
    optimizer = optax.chain(optax.ema(0.9), optax.scale_by_adam(), optax.scale(-1e-3))
    state = optimizer.init(layer)
    _, state = optimizer.update(gradient(layer, u), state, layer)
    small, moved = cut(layer, 4, state, moments=mode)
    smaller, moved = cut(small, 2, moved, moments=mode)
    assert smaller.d_state == 2
    fresh = optimizer.init(smaller)
    assert jax.tree.structure(moved) == jax.tree.structure(fresh)
    assert [x.shape for x in jax.tree.leaves(moved)] == [x.shape for x in jax.tree.leaves(fresh)]
    updates, _ = optimizer.update(gradient(smaller, u), moved, smaller)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))


def test_copies_of_the_parameters_are_cut_as_they_were():
    layer = made("gla")
    average = jax.tree.map(lambda x: 1.01 * x, layer)
    small, (_, copy) = cut(layer, 4, (optax.adam(1e-3).init(layer), average))
    np.testing.assert_allclose(copy.qkv.k_proj.weight, 1.01 * small.qkv.k_proj.weight, rtol=1e-5)
    np.testing.assert_allclose(copy.gk_up.weight, 1.01 * small.gk_up.weight, rtol=1e-5)


def test_layers_of_several_kinds_are_cut_together():
    model = {"lru": LRU.init(H, K, key=jax.random.key(1)), "delta": made("deltanet")}
    small, _ = compress(model, policy=Ranks(4), method=Data(inputs=[inputs(), inputs(2)]))
    assert (small["lru"].d_state, small["delta"].d_state) == (4, 4)


def test_silence_is_named():
    model, u = {"mixer": made("deltanet")}, inputs()
    method = Data(inputs=[u], gradients=[0 * u])
    with pytest.raises(ValueError, match=r"reach the states of \['mixer'\].* sigma are zero"):
        compress(model, policy=Ranks(4), method=method)
    assert compress(model, tolerance=0.5, method=method)[0] is model


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"states": False}, "`states` must be True for .*, a DeltaNet, got False"),
        ({"refit": True}, "`refit` must be False for .*, a DeltaNet, got True"),
    ],
)
def test_settings_that_mean_nothing_here_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        plan(made("deltanet"), policy=Ranks(4), method=Data(inputs(), **setting))
