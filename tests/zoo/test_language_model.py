"""The language model: streaming equals the call, for every kind of layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import BATCH_AXIS, LRU, S5, LanguageModel, Mamba, language_model
from zoo.layers.affine import Linear

LAYERS = {
    "lru": lambda key: LRU.init(8, 4, key=key),
    "s5": lambda key: S5.init(8, 4, key=key),
    "mamba": lambda key: Mamba.init(8, 4, key=key),
}
SETTINGS = {"vocabulary": 13, "d_model": 8, "blocks": 2}


@pytest.mark.parametrize("layer", LAYERS)
def test_streaming_equals_the_call(layer, getkey):
    norm = "layer" if layer == "s5" else "rms"
    model, state = language_model(
        LAYERS[layer], **SETTINGS, norm=norm, tied=layer != "lru", dropout=0.5, key=getkey()
    )
    model = eqx.nn.inference_mode(model)
    tokens = jax.random.randint(getkey(), (40,), 0, 13)

    @eqx.filter_jit
    def every_way(model, tokens):
        logits, _ = model(tokens, state)
        carry, streamed = jax.lax.scan(lambda c, t: model.step(c, t), model.init_state(), tokens)
        middle, first = model.run(model.init_state(), tokens[:25])
        end, second = model.run(middle, jnp.pad(tokens[25:], (0, 10)), 15)
        pieces = model.logits(jnp.concatenate([first, second[:15]]))
        return logits, streamed, pieces, carry, end

    logits, streamed, pieces, carry, end = every_way(model, tokens)
    assert logits.shape == (40, 13)
    np.testing.assert_allclose(streamed, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pieces, logits, rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(carry), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_batches_and_dropout_follow_the_convention_of_the_classifier(getkey):
    model, state = language_model(LAYERS["mamba"], **SETTINGS, dropout=0.5, key=getkey())
    tokens = jax.random.randint(getkey(), (3, 20), 0, 13)
    run = jax.vmap(
        lambda x, state, key: model(x, state, key=key),
        in_axes=(0, None, 0),
        out_axes=(0, None),
        axis_name=BATCH_AXIS,
    )
    first, _ = run(tokens, state, jax.random.split(jax.random.key(0), 3))
    second, _ = run(tokens, state, jax.random.split(jax.random.key(1), 3))
    assert first.shape == (3, 20, 13)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "batch"}, "`norm` of a language model must be one of layer, rms, got 'batch'"),
        ({"vocabulary": 0}, "`vocabulary` must be 1 or more, got 0"),
    ],
)
def test_bad_arguments_are_named(settings, message, getkey):
    with pytest.raises(ValueError, match=message):
        language_model(LAYERS["mamba"], **SETTINGS | settings, key=getkey())


def test_a_head_with_a_bias_is_refused(getkey):
    model, _ = language_model(LAYERS["lru"], **SETTINGS, tied=False, key=getkey())
    biased = Linear.init(8, 13, key=getkey())
    with pytest.raises(ValueError, match="`head` must have no bias"):
        LanguageModel(model.embedding, model.blocks, model.norm, biased)
