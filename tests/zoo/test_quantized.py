"""Weights and states of few bits: near the model, wherever it is used, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from compress import compress
from zoo import (
    BATCH_AXIS,
    LAYERS,
    LRUConfig,
    MambaConfig,
    classifier,
    generate,
    language_model,
    quantize,
    scanned,
)
from zoo.layers.matrix import Int8Matrix
from zoo.network.quantized import Int8State, QuantizedSSM, int8_matrix

RNG = np.random.default_rng(0)


def test_rows_are_rounded_to_the_nearest_of_so_many_steps():
    weight = jnp.asarray(RNG.normal(size=(5, 40)), jnp.float32).at[2].set(0)
    for bits in (8, 4, 2):
        matrix = int8_matrix(weight, bits)
        most = 2 ** (bits - 1) - 1
        assert int(jnp.max(jnp.abs(matrix.values))) == most
        step = np.abs(weight).max(axis=1, keepdims=True) / most
        assert np.all(np.abs(matrix.dense() - weight) <= step / 2 + 1e-6)
    assert np.all(matrix.dense()[2] == 0)


def test_states_of_either_kind_come_back():
    x = jnp.asarray(RNG.normal(size=(3, 9)), jnp.float32)
    np.testing.assert_allclose(Int8State.of(x, 8).restored(), x, atol=0.02)
    z = x[0] + 1j * x[1]
    np.testing.assert_allclose(Int8State.of(z, 8).restored(), z, atol=0.03)


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_stays_near_and_streams(name):
    config = LAYERS[name]
    sizes = {"headdim": 4} if name == "mamba2" else {}
    layer = config(**({"d_state": 8} | sizes)).build(8, key=jax.random.key(0))
    u = jnp.asarray(RNG.normal(size=(12, 8)), jnp.float32)
    y = layer(u)
    small = quantize(layer)
    assert small.d_state == layer.d_state
    assert small.d_model == 8
    spread = float(jnp.std(y))
    assert float(jnp.sqrt(jnp.mean((small(u) - y) ** 2))) < 0.05 * spread
    _, run = small.run(small.init_state(), u)
    np.testing.assert_allclose(run, small(u), atol=1e-4 * max(1, spread))
    both = quantize(layer, state_bits=8)
    error = float(jnp.sqrt(jnp.mean((both(u) - y) ** 2)))
    assert 0 < error < 0.2 * spread
    carry, first = both.run(both.init_state(), u[:5], 4)
    carry, rest = both.run(carry, u[4:])
    np.testing.assert_allclose(jnp.concatenate([first[:4], rest]), both(u), atol=1e-4)


def test_a_classifier_of_8_bits_is_smaller_and_near():
    model, state = classifier(
        lambda key: LRUConfig(32).build(16, key=key),
        input_kind="real",
        input_size=2,
        classes=3,
        d_model=16,
        blocks=2,
        key=jax.random.key(0),
    )
    model = eqx.nn.inference_mode(model)
    x = jnp.asarray(RNG.normal(size=(4, 30, 2)), jnp.float32)

    def logits(model):
        run = jax.vmap(lambda x: model(x, state)[0], axis_name=BATCH_AXIS)
        return run(x)

    small = quantize(model)
    assert isinstance(small.blocks[0].ssm, QuantizedSSM)
    assert np.abs(logits(small) - logits(model)).max() < 0.1 * np.abs(logits(model)).max()

    def size(model):
        return sum(x.nbytes for x in jax.tree.leaves(model) if eqx.is_array(x))

    assert size(small) < 0.4 * size(model)


def test_a_language_model_generates_in_8_bits_and_is_saved(tmp_path):
    model, _ = language_model(
        lambda key: MambaConfig(4).build(16, key=key),
        vocabulary=11,
        d_model=16,
        blocks=3,
        key=jax.random.key(3),
    )
    model = eqx.tree_at(lambda m: m.embedding.weight, model, 20 * model.embedding.weight)
    small = quantize(model)
    ssm = small.blocks[0].ssm
    assert isinstance(ssm.in_proj.weight, Int8Matrix)
    assert eqx.is_array(ssm.dt_proj.weight)
    assert ssm.A_log.dtype == jnp.float32
    prompt = RNG.integers(0, 11, (2, 5))
    tokens, _ = generate(small, prompt, 6, temperature=0)
    again, _ = generate(quantize(scanned(model)), prompt, 6, temperature=0)
    np.testing.assert_array_equal(tokens, again)
    rounded, _ = generate(quantize(model, state_bits=8), prompt, 6, temperature=0)
    assert rounded.shape == (2, 6)
    eqx.tree_serialise_leaves(tmp_path / "small.eqx", small)
    back = eqx.tree_deserialise_leaves(tmp_path / "small.eqx", quantize(model))
    assert eqx.tree_equal(back, small)
    with pytest.raises(ValueError, match="`model` must have weights in floating point"):
        zoo.pretrained.save(tmp_path / "hub", small)


def test_what_is_refused():
    layer = LRUConfig(4).build(3, key=jax.random.key(0))
    for bits in (1, 9):
        with pytest.raises(ValueError, match=f"`bits` must be from 2 to 8, got {bits}"):
            quantize(layer, bits)
        with pytest.raises(ValueError, match=f"`state_bits` must be from 2 to 8, got {bits}"):
            quantize(layer, state_bits=bits)
    small = quantize(layer)
    with pytest.raises(ValueError, match="got one that is quantised"):
        quantize(small)
    with pytest.raises(ValueError, match="`model` must hold layers, linear maps or embeddings"):
        quantize({"a": jnp.ones(3)})
    with pytest.raises((ValueError, TypeError), match="QuantizedSSM"):
        compress(small, None)
