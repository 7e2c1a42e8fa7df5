"""Models of every kind, and the law of padding: it changes nothing."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import (
    BATCH_AXIS,
    S5,
    Bidirectional,
    DeltaNetConfig,
    LRUConfig,
    MambaConfig,
    S4DConfig,
    S5Config,
    classifier,
    language_model,
    pair_classifier,
    regressor,
)
from zoo.network.intervals import check_knows_time
from zoo.network.regressor import FrameEncoder

H, L, PAD = 4, 6, 3
KEY = jax.random.key(0)
LAYERS = {"lru": LRUConfig(d_state=3), "s5": S5Config(d_state=3), "mamba": MambaConfig(d_state=2)}


def make(builder, layer, key, **settings):
    config = LAYERS[layer]
    common = {"d_model": H, "blocks": 2, "key": key}
    return builder(lambda k: config.build(H, key=k), **common | settings)


@eqx.filter_jit
def apply(model, x, state, **extra):
    return jax.vmap(
        lambda x, extra: model(x, state, **extra), out_axes=(0, None), axis_name=BATCH_AXIS
    )(x, extra)


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


def padded(x, value, axis=1):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, PAD)
    return jnp.pad(x, widths, constant_values=value)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("bidirectional", "training"),
    [
        (False, False),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
        (True, True),
    ],
)
def test_padding_changes_nothing(layer, bidirectional, training, getkey):
    """Logits, and in training the statistics of the batch, are those of the sequences alone."""
    model, state = make(
        classifier,
        layer,
        getkey(),
        input_kind="tokens",
        input_size=7,
        classes=3,
        bidirectional=bidirectional,
    )
    model = model if training else eqx.nn.inference_mode(model)
    x = jax.random.randint(getkey(), (5, L), 0, 7)
    plain = apply(model, x, state)
    same = apply(model, padded(x, 6), state, length=jnp.full(5, L))
    close(same, plain)


def test_sequences_of_all_lengths_in_one_batch(getkey):
    """At inference each has the logits that it has alone."""
    model, state = make(
        classifier,
        "s5",
        getkey(),
        input_kind="real",
        input_size=2,
        classes=3,
        bidirectional=True,
    )
    model = eqx.nn.inference_mode(model)
    x = jax.random.normal(getkey(), (3, L, 2))
    together, _ = apply(model, x, state, length=jnp.array([L, 2, 1]))
    for k, length in enumerate([L, 2, 1]):
        alone, _ = apply(model, x[k : k + 1, :length], state)
        close(together[k : k + 1], alone)


def test_statistics_of_a_batch_do_not_count_its_padding(getkey):
    model, state = make(classifier, "lru", getkey(), input_kind="real", input_size=2, classes=3)
    x = jax.random.normal(getkey(), (2, L, 2))
    norm = model.blocks[0].norm
    run = jax.vmap(lambda x, n: norm(x, state, n), out_axes=(0, None), axis_name=BATCH_AXIS)
    h = jax.random.normal(getkey(), (2, L, H))
    lengths = jnp.array([L, 2])
    y, after = run(h, lengths)
    real = np.concatenate([h[0], h[1, :2]])
    _, mean, variance = after.get(norm.running)
    np.testing.assert_allclose(mean, 0.1 * real.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * real.var(axis=0), rtol=1e-4)
    shown = np.concatenate([y[0], y[1, :2]])
    np.testing.assert_allclose(shown.mean(axis=0), 0, atol=1e-5)
    assert np.isfinite(x).all()


def test_a_bidirectional_layer_reads_backwards_from_the_end(getkey):
    layer = Bidirectional(S5.init(H, 3, key=getkey()), S5.init(H, 3, key=getkey()))
    u, dt = jax.random.normal(getkey(), (L, H)), jnp.linspace(0.5, 2, L)
    longer, intervals = padded(u, 9.0, axis=0), padded(dt, 3.0, axis=0)
    close(layer(longer, length=L)[:L], layer(u))
    close(layer(longer, intervals, length=L)[:L], layer(u, dt))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_pair_is_two_sequences_in_one_tower(layer, getkey):
    model, state = make(
        pair_classifier,
        layer,
        getkey(),
        input_kind="tokens",
        input_size=7,
        classes=2,
        bidirectional=True,
    )
    model = eqx.nn.inference_mode(model)
    x = jax.random.randint(getkey(), (4, 2, L), 0, 7)
    plain = apply(model, x, state)
    assert plain[0].shape == (4, 2)
    close(apply(model, padded(x, 5, axis=2), state, length=jnp.full((4, 2), L)), plain)
    swapped, _ = apply(model, x[:, ::-1], state)
    assert np.abs(swapped - plain[0]).max() > 1e-4  # a - b tells which is which
    towers = jax.tree.leaves(eqx.filter(model.blocks, eqx.is_array))
    single, _ = make(
        classifier,
        layer,
        getkey(),
        input_kind="tokens",
        input_size=7,
        classes=2,
        bidirectional=True,
    )
    assert len(towers) == len(jax.tree.leaves(eqx.filter(single.blocks, eqx.is_array)))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("frame", [None, (8, 8)])
def test_values_at_every_sample_follow_the_intervals(layer, frame, getkey):
    model, state = make(
        regressor,
        layer,
        getkey(),
        input_size=64,
        outputs=2,
        frame=frame,
        intervals=True,
    )
    model = eqx.nn.inference_mode(model)
    x, dt = jax.random.normal(getkey(), (3, L, 64)), jnp.ones((3, L))
    values, _ = apply(model, x, state, dt=dt)
    assert values.shape == (3, L, 2)
    other, _ = apply(model, x, state, dt=dt.at[:, 3].set(400.0))
    np.testing.assert_allclose(other[:, :3], values[:, :3], rtol=1e-4, atol=1e-6)
    assert np.abs(other[:, 3:] - values[:, 3:]).max() > 1e-5
    close(values, apply(model, x, state)[0])  # unit intervals are no intervals


@pytest.mark.parametrize("frame", [(24, 24), (9, 14), (7, 6)])
def test_pictures_are_encoded_as_by_the_convolutions_of_equinox(frame, getkey):
    encoder = FrameEncoder(frame, H, key=getkey())
    x = jax.random.normal(getkey(), (2, frame[0] * frame[1]))
    pool = eqx.nn.MaxPool2d(2, 2)

    def plain(encoder, pixels):
        h = pool(jax.nn.relu(encoder.wide(pixels.reshape(1, *frame))))
        return encoder.linear(pool(jax.nn.relu(encoder.narrow(h))).ravel())

    def loss(encoder, call):
        return jnp.sum(jnp.sin(call(encoder)))

    calls = (lambda e: e(x)), (lambda e: jax.vmap(lambda pixels: plain(e, pixels))(x))
    ours, theirs = (eqx.filter_value_and_grad(loss)(encoder, call) for call in calls)
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_bad_regressors_are_refused(getkey):
    with pytest.raises(ValueError, match=r"`frame` must have 64 pixels .*got \(2, 3\)"):
        make(regressor, "lru", getkey(), input_size=64, outputs=1, frame=(2, 3))
    with pytest.raises(ValueError, match=r"`frame` must have 6 pixels or more .*got \(4, 16\)"):
        FrameEncoder((4, 16), H, key=getkey())


@pytest.mark.parametrize("layer", [DeltaNetConfig(d_state=2), S4DConfig(d_state=2)])
def test_layers_that_know_no_time_are_refused_where_there_are_intervals(layer, getkey):
    sizes = {"input_size": 3, "outputs": 1, "d_model": H, "blocks": 1, "key": getkey()}
    with pytest.raises(ValueError, match=r"layers must advance by intervals .*got a (Delta|S4D)"):
        regressor(lambda key: layer.build(H, key=key), intervals=True, **sizes)
    with pytest.raises(ValueError, match="`dt` must be None, since a DeltaNet has no decay"):
        DeltaNetConfig(d_state=2).build(H, key=KEY)(jnp.zeros((L, H)), dt=jnp.ones(L))


def test_layers_say_what_the_network_has_to_know():
    made = {name: zoo.LAYERS[name]().build(64, key=KEY) for name in sorted(zoo.LAYERS)}
    taking = [name for name, layer in made.items() if layer.takes_intervals]
    mixing = [name for name, layer in made.items() if layer.is_mixer]
    selective = ["gated_deltanet", "gla", "mamba", "mamba2", "retnet"]
    assert taking == sorted([*selective, "lru", "s5"])
    with pytest.raises(ValueError, match="advance by intervals") as refused:
        check_knows_time(lambda key: made["deltanet"], True)
    assert all(name in str(refused.value) for name in taking)
    assert mixing == sorted([*selective, "deltanet"])


@pytest.mark.parametrize("layer", LAYERS)
def test_every_network_follows_the_intervals(layer, getkey):
    real = {"input_kind": "real", "input_size": 3, "classes": 2}
    tokens = jax.random.randint(getkey(), (2, L), 0, 5)
    dt = jnp.ones((2, L)).at[:, 3].set(4.0)
    for builder, settings, x, times in (
        (classifier, real, jax.random.normal(getkey(), (2, L, 3)), dt),
        (
            pair_classifier,
            {**real, "input_kind": "tokens", "input_size": 5},
            jnp.stack([tokens, tokens[:, ::-1]], axis=1),
            jnp.stack([dt, dt], axis=1),
        ),
        (language_model, {"vocabulary": 5}, tokens, dt),
    ):
        model, state = make(builder, layer, getkey(), intervals=True, **settings)
        model = eqx.nn.inference_mode(model)
        ones, _ = apply(model, x, state, dt=jnp.ones_like(times))
        other, _ = apply(model, x, state, dt=times)
        assert np.abs(other - ones).max() > 1e-6, builder.__name__
        close(ones, apply(model, x, state)[0])  # unit intervals are no intervals


@pytest.mark.parametrize("layer", LAYERS)
def test_first_states_and_other_sizes(layer):
    """Entries are copied, and the shapes are those of a layer made with as many states."""
    full = replace(LAYERS[layer], d_state=4).build(H, key=KEY)
    small, like = full.first_states(2), full.resized(2)
    assert small.d_state == like.d_state == 2
    assert type(small) is type(like) is type(full)
    for x, y, whole in zip(*map(jax.tree.leaves, (small, like, full)), strict=True):
        assert x.shape == y.shape
        assert np.isin(x, whole).all()


def test_a_forecast_begins_at_the_present_values(getkey):
    model, state = make(regressor, "lru", getkey(), input_size=3, outputs=4, targets=(2, 0))
    model = eqx.tree_at(lambda m: (m.head.weight, m.head.bias), model, replace_fn=jnp.zeros_like)
    x = jax.random.normal(getkey(), (L, 3))
    values, _ = eqx.nn.inference_mode(model)(x, state)
    np.testing.assert_allclose(values, jnp.tile(x[:, np.array([2, 0])], (1, 2)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"`targets` must be as many as divide outputs=3, got"):
        make(regressor, "lru", getkey(), input_size=3, outputs=3, targets=(0, 1))
