"""The commonest mistakes, each answered by one sentence that says what to do."""

import jax
import jax.numpy as jnp
import pytest

from zoo import (
    GLA,
    LRU,
    S5,
    DeltaNet,
    GatedDeltaNet,
    LinOSS,
    LRUConfig,
    Mamba,
    Mamba2,
    RetNet,
    classifier,
    language_model,
    regressor,
)

KEY = jax.random.key(0)
U = jnp.ones((100, 4))
LAYERS = {
    "lru": lambda d_state=3, key=KEY: LRU.init(4, d_state, key=key),
    "s5": lambda d_state=3, key=KEY: S5.init(4, d_state, key=key),
    "mamba": lambda d_state=3, key=KEY: Mamba.init(4, d_state, key=key),
    "mamba2": lambda d_state=3, key=KEY: Mamba2.init(4, d_state, key=key, headdim=4),
    "gla": lambda d_state=3, key=KEY: GLA.init(4, d_state, key=key),
    "retnet": lambda d_state=3, key=KEY: RetNet.init(4, d_state, key=key),
    "deltanet": lambda d_state=3, key=KEY: DeltaNet.init(4, d_state, key=key),
    "gated_deltanet": lambda d_state=3, key=KEY: GatedDeltaNet.init(4, d_state, key=key),
}
ALL = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def said(call):
    """The sentence that a call ends with."""
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def model(kind="real", **settings):
    common = {"d_model": 4, "blocks": 1, "key": KEY}
    return classifier(
        lambda key: LRU.init(4, 3, key=key),
        input_kind=kind,
        input_size=3,
        classes=2,
        **common | settings,
    )


@ALL
def test_a_batch_without_vmap(make):
    batch = jnp.ones((8, 100, 4))
    message = "u has shape (8, 100, 4), expected [length, 4]: use jax.vmap over a batch"
    layer = make()
    assert said(lambda: layer(batch)) == message
    assert said(lambda: jax.jit(lambda u: layer(u))(batch)) == message
    assert said(lambda: layer.run(layer.init_state(), batch)) == message
    step = said(lambda: layer.step(layer.init_state(), U))
    assert step == "u_t has shape (100, 4), expected [4]: use jax.vmap over a batch"


@ALL
def test_wrong_channels(make):
    assert said(lambda: make()(U[:, :3])) == "u has shape (100, 3), expected [length, 4]"
    layer = make()
    assert said(lambda: layer.step(layer.init_state(), U[0, :3])) == (
        "u_t has shape (3,), expected [4]"
    )


@pytest.mark.parametrize("layer", [LRU, S5, Mamba, Mamba2, GLA, RetNet, DeltaNet, GatedDeltaNet])
def test_fields_for_settings(layer):
    message = said(lambda: layer(4, 64))
    assert f"use {layer.__name__}.init(4, 64, key=key) to make a new one" in message


@ALL
def test_a_number_for_a_key(make):
    message = said(lambda: make(key=0))
    assert message == "`key` must be a random key such as jax.random.key(0), got 0"


def test_no_key():
    message = said(lambda: LRU.init(4, 64))  # pyright: ignore[reportCallIssue]
    assert message == "`key` is missing: pass a random key, as in key=jax.random.key(0)"


@ALL
def test_no_states(make):
    assert said(lambda: make(d_state=-1)) == "`d_state` must be 1 or more, got -1"
    assert said(lambda: LRUConfig(d_state=-1)) == "`d_state` must be 1 or more, got -1"


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        *((Mamba, name) for name in ("d_model", "d_state", "expand", "d_conv", "dt_rank")),
        *((Mamba2, name) for name in ("d_model", "d_state", "expand", "d_conv", "headdim")),
        *((kind, name) for kind in (GLA, DeltaNet, RetNet) for name in ("expand", "d_conv")),
        (GLA, "gate_rank"),
        (GLA, "gate_normalizer"),
        (LinOSS, "d_state"),
    ],
)
def test_sizes_below_one(layer, name):
    for value in (0, -1):
        message = said(lambda v=value: layer.init(**{"d_model": 4, "d_state": 4, name: v}, key=KEY))
        assert message.startswith(f"`{name}` must ")


@ALL
def test_tokens_for_reals(make):
    tokens = jnp.arange(100)
    message = said(lambda: make()(tokens))
    assert message == "u holds int32 of shape (100,), expected real numbers [length, 4]"
    reals, state = model()
    message = said(lambda: reals(tokens, state))
    assert message == "x holds int32 of shape (100,), expected real numbers [length, 3]"


def test_reals_for_tokens():
    tokens, state = model("tokens")
    message = said(lambda: tokens(jnp.ones((100, 3)), state))
    assert message == "x holds float32 of shape (100, 3), expected integers [length]"


def test_a_batch_for_a_model():
    reals, state = model()
    message = said(lambda: reals(jnp.ones((8, 100, 3)), state))
    assert message.startswith("x has shape (8, 100, 3), expected [length, ")
    assert message.endswith(": use jax.vmap over a batch")
    tokens, state = model("tokens")
    message = said(lambda: tokens(jnp.ones((8, 100), int), state))
    assert message == "x has shape (8, 100), expected [length]: use jax.vmap over a batch"


def make_language_model():
    return language_model(
        lambda key: LRU.init(4, 3, key=key), vocabulary=5, d_model=4, blocks=1, key=KEY
    )


def make_regressor():
    return regressor(
        lambda key: LRU.init(4, 3, key=key),
        input_size=3,
        outputs=2,
        d_model=4,
        blocks=1,
        key=KEY,
    )


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (model, jnp.ones((100, 3))),
        (make_language_model, jnp.arange(5)),
        (make_regressor, jnp.ones((100, 3))),
    ],
)
def test_a_state_forgotten(make, x):
    forgetful, _ = make()
    assert said(lambda: forgetful(x)) == (
        "`state` is missing: pass the eqx.nn.State that was made with the model, as in "
        "model(x, state)"
    )
    message = said(lambda: forgetful(x, None))
    assert message == "`state` must be the eqx.nn.State that was made with the model, got None"


def test_training_without_an_axis_name():
    net, state = model(norm="batch")
    x = jnp.ones((8, 100, 3))
    unnamed = jax.vmap(net, in_axes=(0, None), out_axes=(0, None))
    for call in (lambda: unnamed(x, state), lambda: net(x[0], state)):
        wanted = "use jax.vmap(..., axis_name='batch'), or eqx.nn.inference_mode(model)"
        assert wanted in said(call)
