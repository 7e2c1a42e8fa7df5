"""Sliding-window attention: its formula, streamed, and between recurrent blocks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import Rank, compress
from zoo import LRU, S5Config, WindowAttention, classifier, language_model
from zoo.network.block import AttentionBlock, Block

H = 8


def attention_of(key, window=4, heads=2):
    layer = WindowAttention.init(H, heads=heads, window=window, key=key)
    bias = jax.random.normal(jax.random.fold_in(key, 1), layer.bias.shape)
    return eqx.tree_at(lambda m: m.bias, layer, bias)


def plainly(layer, u):
    """All scores at once, of which those outside the window are left out."""
    heads, window = layer.bias.shape
    parts = (x.weight @ u.T for x in (layer.query, layer.key, layer.value))
    q, k, v = (x.T.reshape(len(u), heads, -1) for x in parts)
    lag = np.arange(len(u))[:, None] - np.arange(len(u))
    scores = jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(H // heads)
    scores = scores + layer.bias[:, np.clip(lag, 0, window - 1)]
    scores = jnp.where((lag >= 0) & (lag < window), scores, -jnp.inf)
    y = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores, -1), v)
    return y.reshape(len(u), H) @ layer.output.weight.T


@pytest.mark.parametrize(("window", "length"), [(1, 3), (4, 0), (4, 13), (30, 5)])
def test_it_is_its_formula_whole_in_pieces_and_padded(window, length, getkey):
    layer = attention_of(getkey(), window)
    u = jax.random.normal(getkey(), (length, H))
    expected = plainly(layer, u) if length else u
    np.testing.assert_allclose(layer(u), expected, atol=1e-5)
    carry, pieces = layer.init_state(), []
    for piece in (u[: length // 3], u[length // 3 :]):
        carry, y = layer.run(carry, piece)
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces), expected, atol=1e-5)
    state, outputs = layer.init_state(), []
    for u_t in u:
        state, y_t = layer.step(state, u_t)
        outputs.append(y_t)
    if length:
        np.testing.assert_allclose(jnp.stack(outputs), expected, atol=1e-5)
        padded = jnp.concatenate([u, jnp.full((3, H), 9.0)])
        after, y = layer.run(layer.init_state(), padded, jnp.asarray(length))
        np.testing.assert_allclose(y[:length], expected, atol=1e-5)
        for ours, theirs in zip(*map(jax.tree.leaves, (after, carry)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (state, carry)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_gradients_are_finite_differences(x64, getkey):
    layer = attention_of(getkey())
    u, weights = jax.random.normal(getkey(), (2, 11, H))

    @jax.jit
    def loss(layer, u):
        return jnp.sum(weights * jnp.sin(layer(u)))

    leaves, structure = jax.tree.flatten((layer, u))
    change = [jax.random.normal(getkey(), x.shape) for x in leaves]
    gradient = jax.tree.leaves(jax.grad(loss, (0, 1))(layer, u))
    slope = sum(jnp.vdot(g, x) for g, x in zip(gradient, change, strict=True))
    ahead, behind = (
        loss(*structure.unflatten([x + s * d for x, d in zip(leaves, change, strict=True)]))
        for s in (1e-6, -1e-6)
    )
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("heads", "window", "message"),
    [(3, 4, "`heads` must divide d_model=8, got 3"), (2, 0, "`window` must be 1 or more")],
)
def test_bad_sizes_are_named(heads, window, message):
    with pytest.raises(ValueError, match=message):
        WindowAttention.init(H, heads=heads, window=window, key=jax.random.key(0))


def hybrid(key, blocks, every, **more):
    return language_model(
        lambda key: LRU.init(H, 6, key=key),
        vocabulary=11,
        d_model=H,
        blocks=blocks,
        attention_every=every,
        attention_window=5,
        attention_heads=2,
        key=key,
        **more,
    )


@pytest.mark.parametrize(
    ("blocks", "every", "expected"),
    [(2, 0, "ss"), (2, 1, "sas"), (4, 2, "ssass"), (3, 1, "sasas"), (1, 1, "s")],
)
def test_attention_stands_between_blocks(blocks, every, expected, getkey):
    model, _ = hybrid(getkey(), blocks, every)
    kinds = {Block: "s", AttentionBlock: "a"}
    assert "".join(kinds[type(block)] for block in model.blocks) == expected


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_hybrid_language_model_streams_and_shrinks(norm_first, getkey):
    model, state = hybrid(getkey(), 3, 1, norm_first=norm_first)
    tokens = jnp.arange(17) % 11
    logits, _ = model(tokens, state)
    carry, h = model.run(model.init_state(), tokens[:9])
    np.testing.assert_allclose(model.logits(h), logits[:9], atol=1e-4)
    for k in range(9, 17):
        carry, y_t = model.step(carry, tokens[k])
        np.testing.assert_allclose(y_t, logits[k], atol=1e-4)
    small, _ = compress(model, policy=Rank(3))
    assert [block.ssm.d_state for block in small.blocks[::2]] == [3, 3, 3]
    assert all(small.blocks[k].attention.bias is model.blocks[k].attention.bias for k in (1, 3))


def test_a_hybrid_classifier_knows_its_padding(getkey):
    model, state = classifier(
        lambda key: S5Config(4).build(H, key=key),
        input_kind="real",
        input_size=2,
        classes=3,
        d_model=H,
        blocks=2,
        norm="layer",
        attention_every=1,
        attention_window=4,
        attention_heads=2,
        bidirectional=True,
        key=getkey(),
    )
    x = jax.random.normal(getkey(), (12, 2))
    logits, _ = model(x[:7], state)
    padded, _ = model(x.at[7:].set(30.0), state, length=7)
    np.testing.assert_allclose(padded, logits, atol=1e-5)
