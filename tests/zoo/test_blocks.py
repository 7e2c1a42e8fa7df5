"""Residual blocks: where the norm stands, what gates, which sample is classified."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import BATCH_AXIS, LRU, classifier, language_model, pair_classifier
from zoo.network.block import BlockSettings, MixerBlock, residual_block
from zoo.network.norm import EMABatchNorm

H = 4
X = jax.random.normal(jax.random.key(3), (9, H))


def block_of(key, **settings):
    def build():
        return residual_block(
            lambda key: LRU.init(H, 3, key=key), BlockSettings(**settings), d_model=H, key=key
        )

    return eqx.nn.make_with_state(build)()


def plain_gate(block, y):
    """The formulas of the public code's activations, and no activation."""
    if isinstance(block, MixerBlock):
        return y
    x = jax.nn.gelu(y)
    if block.glu is None:
        return x
    gate = jax.nn.sigmoid(jax.vmap(block.glu.gate)(x))
    if hasattr(block.glu, "linear"):
        return jax.vmap(block.glu.linear)(x) * gate
    return (y if block.glu.gates_before else x) * gate


@pytest.mark.parametrize("gate", ["full_glu", "half_glu1", "half_glu2", "none", "linear"])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_block_is_its_formula_and_streams(gate, norm_first, norm, getkey):
    block, state = block_of(getkey(), gate=gate, norm_first=norm_first, norm=norm)
    norm_of = jax.vmap(block.norm.norm)
    if norm_first:
        expected = X + plain_gate(block, block.ssm(norm_of(X)))
    else:
        expected = norm_of(X + plain_gate(block, block.ssm(X)))
    y, _ = block(X, state)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    ssm = block.streamed()[1]
    carry, first = block.run(ssm.init_state(), X[:5])
    rest = []
    for x_t in X[5:]:
        carry, y_t = block.step(carry, x_t)
        rest.append(y_t)
    np.testing.assert_allclose(jnp.concatenate([first, jnp.stack(rest)]), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "value"), [("norm", "batch2"), ("gate", "glu")], ids=["norm", "gate"]
)
def test_unknown_names_are_refused(setting, value):
    with pytest.raises((ValueError, TypeError), match=f"'{value}'"):
        BlockSettings(**{setting: value})


@pytest.mark.parametrize("norm", ["batch", "batch-ema", "layer", "rms"])
def test_norms_without_weight_and_bias_and_with_another_epsilon(norm, getkey):
    plain, state = block_of(getkey(), norm=norm, norm_affine=False, norm_epsilon=0.5)
    assert not jax.tree.leaves(eqx.filter(plain.norm, eqx.is_inexact_array))

    def call(x):
        y, _ = plain.norm(x, state)
        return y

    x = jnp.stack([X, 2 * X])
    y = jax.vmap(call, axis_name=BATCH_AXIS)(x)
    over = (0, 1) if norm.startswith("batch") else -1
    mean = 0 if norm == "rms" else x.mean(over, keepdims=True)
    variance = ((x - mean) ** 2).mean(over, keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / jnp.sqrt(variance + 0.5), rtol=1e-4, atol=1e-5)


def test_running_statistics_in_training_are_equinox_s(getkey):
    """`eqx.nn.BatchNorm(mode="ema")`: values, gradients and the state, over three steps."""
    ours, our_state = eqx.nn.make_with_state(EMABatchNorm)(3)
    theirs, their_state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        3, BATCH_AXIS, mode="ema", momentum=0.99
    )

    def batched(norm, x, state):
        over = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": BATCH_AXIS}
        return jax.vmap(norm, **over)(x, state)

    def of_theirs(norm):
        def call(x, state):
            y, state = norm(x.T, state)
            return y.T, state

        return call

    for step in range(3):
        x = 2 + step + 3 * jax.random.normal(getkey(), (4, 7, 3))
        weights = jax.random.normal(getkey(), x.shape)

        def loss(x, call, state, weights=weights):
            return jnp.sum(weights * jnp.sin(batched(call, x, state)[0]))

        mine = jax.grad(loss)(x, ours, our_state)
        np.testing.assert_allclose(
            mine, jax.grad(loss)(x, of_theirs(theirs), their_state), atol=2e-5
        )
        y, our_state = batched(ours, x, our_state)
        expected, their_state = batched(of_theirs(theirs), x, their_state)
        np.testing.assert_allclose(y, expected, atol=1e-5)
    at_rest, original = eqx.nn.inference_mode(ours), eqx.nn.inference_mode(theirs)
    expected, _ = batched(of_theirs(original), x, their_state)
    np.testing.assert_allclose(batched(at_rest, x, our_state)[0], expected, atol=1e-5)


def test_padding_is_nothing_to_running_statistics(getkey):
    norm, state = eqx.nn.make_with_state(EMABatchNorm)(H)
    x = jnp.stack([X, X.at[5:].set(77.0)])
    lengths = jnp.array([9, 5])

    def call(x, state, length):
        return norm(x, state, length)

    over = {"out_axes": (0, None), "axis_name": BATCH_AXIS}
    _, after = jax.vmap(call, in_axes=(0, None, 0), **over)(x, state, lengths)
    own = jnp.concatenate([X, X[:5]])
    np.testing.assert_allclose(after.get(norm.running)[1], own.mean(0), atol=1e-5)
    np.testing.assert_allclose(after.get(norm.running)[2], own.var(0), atol=1e-5)


@pytest.mark.parametrize("make", [classifier, pair_classifier])
def test_the_last_sample_is_the_last_that_is_no_padding(make, getkey):
    model, state = make(
        lambda key: LRU.init(H, 3, key=key),
        input_kind="real",
        input_size=2,
        classes=3,
        d_model=H,
        blocks=1,
        norm="layer",
        pooling="last",
        key=getkey(),
    )
    pair = make is pair_classifier
    x = jax.random.normal(getkey(), (2, 8, 2) if pair else (8, 2))
    cut = x[:, :5] if pair else x[:5]
    padded = x.at[..., 5:, :].set(9.0)
    own = jnp.array([5, 5]) if pair else 5
    logits, _ = model(cut, state)
    np.testing.assert_allclose(model(padded, state, length=own)[0], logits, atol=1e-5)
    moved = model(x.at[..., 5:, :].set(9.0), state)[0]
    assert not np.allclose(moved, logits)


def test_a_language_model_normalised_behind_its_blocks_streams(getkey):
    model, state = language_model(
        lambda key: LRU.init(H, 3, key=key),
        vocabulary=7,
        d_model=H,
        blocks=2,
        norm_first=False,
        gate="half_glu2",
        key=getkey(),
    )
    tokens = jnp.arange(10) % 7
    logits, _ = model(tokens, state)
    carry, h = model.run(model.init_state(), tokens[:6])
    carry, y_t = model.step(carry, tokens[6])
    np.testing.assert_allclose(model.logits(h), logits[:6], atol=1e-5)
    np.testing.assert_allclose(y_t, logits[6], atol=1e-5)
