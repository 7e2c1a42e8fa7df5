"""Layers of linear attention: as published, in any basis of the keys that their form allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import GLA, DeltaNet, GatedDeltaNet, RetNet, attention_scan
from zoo.layers.query_key_value import KeyMaps

H, K = 8, 4
MAKERS = {
    "gla": lambda key: GLA.init(H, K, key=key),
    "gla convolved": lambda key: GLA.init(H, K, key=key, d_conv=3, conv_bias=True),
    "retnet": lambda key: RetNet.init(H, K, key=key),
    "retnet convolved": lambda key: RetNet.init(H, K, key=key, d_conv=4),
    "deltanet": lambda key: DeltaNet.init(H, K, key=key),
    "deltanet bare": lambda key: DeltaNet.init(H, K, key=key, d_conv=None, gated=True),
    "deltanet negative": lambda key: DeltaNet.init(H, K, key=key, negative=True, maps=True),
    "gated deltanet": lambda key: GatedDeltaNet.init(H, K, key=key),
    "gated deltanet shared": lambda key: GatedDeltaNet.init(
        H, K, key=key, heads=4, key_heads=2, gated=False, conv_bias=True, negative=True
    ),
}
QUICK = ("gla", "retnet convolved", "deltanet negative", "gated deltanet shared")
ALL = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, make in MAKERS.items()
    ],
)
ONE_OF_EACH = pytest.mark.parametrize(
    "name",
    [
        "gated deltanet",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("gla", "retnet", "deltanet")),
    ],
)
ALIKE = [name for name in MAKERS if "gla" not in name]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def convolved(conv, x):
    weight, taps = np.asarray(conv.weight), conv.weight.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1])), x])
    y = sum(weight[:, i] * padded[i : i + len(x)] for i in range(taps))
    return y if conv.bias is None else y + np.asarray(conv.bias)


def decays_of(layer, u):
    """a_t as the papers write it, [L heads 1 or K]."""
    if isinstance(layer, GLA):
        up, down = layer.gk_up, layer.gk_down
        logits = u @ np.asarray(down.weight).T @ np.asarray(up.weight).T + np.asarray(up.bias)
        return (sigmoid(logits) ** (1 / 16)).reshape(len(u), layer.heads, -1)
    if isinstance(layer, RetNet):
        each = 1 - 2.0 ** -(5 + np.arange(layer.heads))
        return np.broadcast_to(each[:, None], (len(u), layer.heads, 1))
    if isinstance(layer, DeltaNet):
        return np.ones((len(u), layer.heads, 1))
    steps = np.log1p(np.exp(u @ np.asarray(layer.a_proj.weight).T + np.asarray(layer.dt_bias)))
    return np.exp(-np.exp(np.asarray(layer.A_log)) * steps)[..., None]


def as_published(layer, u):
    """The layer's output by NumPy in double precision, written from the equations."""
    part, L = layer.qkv, len(u)
    rows = [np.asarray(x.weight) for x in (part.q_proj, part.k_proj, part.v_proj)]
    x = u @ np.concatenate(rows).T
    if part.conv1d is not None:
        x = convolved(part.conv1d, x)
    delta = isinstance(layer, DeltaNet | GatedDeltaNet)
    if part.conv1d is not None or delta:
        x = silu(x)
    n = part.key_heads * K
    q, k, v = x[:, :n], x[:, n : 2 * n], x[:, 2 * n :].reshape(L, layer.heads, -1)
    q, k = (a.reshape(L, part.key_heads, K) for a in (q, k))
    if delta:
        q, k = (a / np.sqrt(np.sum(a**2, axis=-1, keepdims=True) + 1e-6) for a in (q, k))
    each = layer.heads // part.key_heads
    q, k = np.repeat(q, each, axis=1) / np.sqrt(K), np.repeat(k, each, axis=1)
    a, S, o = decays_of(layer, u), np.zeros((layer.heads, K, v.shape[2])), np.zeros(v.shape)
    for t in range(L):
        for h in range(layer.heads):
            if delta:
                b = sigmoid(np.asarray(layer.b_proj.weight)[h] @ u[t]) * (1 + layer.negative)
                kept = a[t, h] * (np.eye(K) - b * np.outer(k[t, h], k[t, h]))
                S[h] = kept @ S[h] + b * np.outer(k[t, h], v[t, h])
            else:
                S[h] = np.diag(np.broadcast_to(a[t, h], K)) @ S[h] + np.outer(k[t, h], v[t, h])
            o[t, h] = S[h].T @ q[t, h]
    y = o / np.sqrt(np.mean(o**2, axis=-1, keepdims=True) + 1e-5) * np.asarray(layer.o_norm)
    if layer.g_proj is not None:
        y = y * silu(u @ np.asarray(layer.g_proj.weight).T).reshape(y.shape)
    return y.reshape(L, -1) @ np.asarray(layer.o_proj.weight).T


@ALL
def test_layers_are_as_published(make, x64, getkey):
    layer, u = make(getkey()), jax.random.normal(getkey(), (30, H))
    np.testing.assert_allclose(layer(u), as_published(layer, np.asarray(u)), rtol=0, atol=1e-12)


@ONE_OF_EACH
def test_signals_and_what_is_made_of_the_outputs_are_the_layer(name, getkey):
    layer, u = MAKERS[name](getkey()), jax.random.normal(getkey(), (20, H))
    q, k, v, log_decay, beta, gate = layer.signals(u)
    assert q.shape == k.shape == (20, layer.key_heads, layer.d_state)
    o, S = attention_scan(q, k, v, log_decay, beta)
    np.testing.assert_allclose(layer.emit(o, gate), layer(u), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(S, layer.run(layer.init_state(), u)[0].S, rtol=1e-5, atol=1e-6)


def bases(layer, kind, key):
    """W and U of all keys with W^T U = I, [key_heads K K]: invertible, orthonormal, permuting."""
    rng = np.random.default_rng(3)
    if kind == "any":
        W = np.eye(K) + 0.3 * rng.normal(size=(layer.key_heads, K, K))
        return W, np.swapaxes(np.linalg.inv(W), 1, 2)
    if kind == "orthonormal":
        W = np.linalg.qr(rng.normal(size=(layer.key_heads, K, K)))[0]
    else:
        W = np.stack([np.eye(K)[:, rng.permutation(K)] for _ in range(layer.key_heads)])
    return W, W


def in_basis(layer, W, U):
    def times(matrices):
        return lambda x: np.einsum("hkr,hk...->hr...", matrices, np.asarray(x))

    return layer.map_keys(q=times(U), k=times(W), decay=times(W))


@ALL
def test_any_basis_that_the_form_allows_gives_the_layer_again(make, x64, getkey):
    """Written into maps, or where nothing stands in between folded into the projections."""
    layer, u = make(getkey()), jax.random.normal(getkey(), (30, H))
    kinds = ["selection"]
    if layer.basis != "selection":
        layer = layer if layer.mixes_keys else layer.with_maps()
        kinds += ["orthonormal"] if layer.basis == "orthonormal" else ["orthonormal", "any"]
    assert layer.mixes_keys == (layer.basis != "selection")
    y = layer(u)
    for kind in kinds:
        same = in_basis(layer, *bases(layer, kind, getkey()))
        assert jax.tree.structure(same) == jax.tree.structure(layer)
        np.testing.assert_allclose(same(u), y, rtol=0, atol=1e-12)
        assert np.abs(same.signals(u).k - layer.signals(u).k).max() > 1e-3


def test_a_cut_is_folded_where_nothing_stands_in_between(x64, getkey):
    """Of a RetNet layer no maps are left, and the error is that of the part that is left out."""
    layer, u = RetNet.init(H, K, key=getkey()), jax.random.normal(getkey(), (30, H))
    W, U = bases(layer, "any", getkey())
    small = in_basis(layer, W[..., :2], U[..., :2])
    assert (small.d_state, small.qkv.maps) == (2, None)
    whole, part = layer.signals(u), small.signals(u)
    o = attention_scan(*whole[:5])[0]
    rest = [
        jnp.einsum("hkr,thk->thr", matrices[..., 2:], a)
        for matrices, a in ((U, whole.q), (W, whole.k))
    ]
    missed = attention_scan(*rest, *whole[2:5])[0]
    np.testing.assert_allclose(attention_scan(*part[:5])[0] + missed, o, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ALIKE)
def test_maps_change_nothing_at_first_and_are_what_a_cut_keeps(name, getkey):
    layer, u = MAKERS[name](getkey()), jax.random.normal(getkey(), (20, H))
    mapped = layer.with_maps()
    np.testing.assert_allclose(mapped(u), layer(u), rtol=1e-5, atol=1e-6)
    leaves, before = jax.tree.leaves(mapped), jax.tree.leaves(layer)
    if layer.qkv.maps is None:  # the last arrays of the layer
        assert len(leaves) == len(before) + 2
        assert all(a is b for a, b in zip(leaves, before, strict=False))
    small = mapped.first_states(2)
    assert (small.d_state, small.qkv.keys) == (2, K)
    assert small.qkv.maps.k.shape == (layer.key_heads, K, 2)
    assert small.init_state().S.shape == (layer.heads, 2, layer.values)
    if small.qkv.feature == "unit":
        k = small.signals(u).k
        np.testing.assert_allclose(jnp.linalg.norm(k, axis=-1), 1, atol=1e-2)
    rows = layer.with_maps().resized(3).qkv
    assert (rows.k_proj.weight.shape, rows.d_state) == (mapped.qkv.k_proj.weight.shape, 3)


def test_a_selection_takes_the_rows_of_projections_convolution_and_decays(getkey):
    layer = GLA.init(H, K, key=getkey(), d_conv=3, conv_bias=True)
    small = layer.map_keys(*[lambda x: x[:, 1:3]] * 3)
    kept = np.arange(2 * K).reshape(2, K)[:, 1:3].ravel()
    n = 2 * K
    channels = np.concatenate([kept, n + kept, np.arange(2 * n, 2 * n + H)])
    np.testing.assert_array_equal(small.qkv.k_proj.weight, layer.qkv.k_proj.weight[kept])
    np.testing.assert_array_equal(small.qkv.conv1d.weight, layer.qkv.conv1d.weight[channels])
    np.testing.assert_array_equal(small.qkv.conv1d.bias, layer.qkv.conv1d.bias[channels])
    np.testing.assert_array_equal(small.gk_up.bias, layer.gk_up.bias[kept])
    assert small.qkv.scale == layer.qkv.scale == K**-0.5


def test_what_does_not_fit_is_said(getkey):
    gla = GLA.init(H, K, key=getkey())
    with pytest.raises(ValueError, match="a GLA must have keys that decay alike to have maps"):
        gla.with_maps()
    maps = KeyMaps(jnp.ones((2, K, K)), jnp.ones((2, K, K)))
    with pytest.raises(ValueError, match="`qkv` must have no maps"):
        GLA(**vars(gla) | {"qkv": type(gla.qkv)(**vars(gla.qkv) | {"maps": maps})})
    with pytest.raises(ValueError, match="`key_heads` must divide heads=4, got 3"):
        GatedDeltaNet.init(H, K, key=getkey(), heads=4, key_heads=3)
    with pytest.raises(ValueError, match="`heads` must divide expand \\* d_model=8, got 3"):
        DeltaNet.init(H, K, key=getkey(), heads=3)
