"""Maps kept behind what makes B and C of Mamba-2: what they save, and what follows such a cut."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from compress import Data, Ranks, compress
from compress.optimizer.carry import MODES
from zoo import Mamba2
from zoo.law import check_layer
from zoo.network.language_model import language_model
from zoo.pretrained.checkpoint import load, read_config, save

D_MODEL, N, LENGTH, SEQUENCES, RATE = 6, 8, 40, 3, 1e-3


def inputs(seed: int = 1):
    return np.random.default_rng(seed).standard_normal((SEQUENCES, LENGTH, D_MODEL), np.float32)


def layer(groups: int = 2) -> Mamba2:
    key = jax.random.key(3)
    return Mamba2.init(D_MODEL, N, key=key, headdim=3, n_groups=groups, chunk_size=8)


def repeated() -> Mamba2:
    """A layer whose B has each entry twice, so that half of the states say all."""
    made = layer()
    at = made.d_inner + 2 * np.arange(N)  # of the channels of the convolution, every other one of B

    def twice(rows, first):
        rows = np.array(rows)
        rows[first + 1] = rows[first]
        return jnp.asarray(rows)

    parts = (
        twice(made.in_proj.weight, made.d_inner + at),
        twice(made.conv1d.weight, at),
        twice(made.conv1d.bias, at),
    )
    return eqx.tree_at(lambda m: (m.in_proj.weight, m.conv1d.weight, m.conv1d.bias), made, parts)


@eqx.filter_jit
def run(made, u):
    return jax.vmap(made)(u)


def outputs(made, u):
    return np.asarray(run(made, jnp.asarray(u)))


@eqx.filter_jit
@eqx.filter_grad
def gradient(made, u):
    return jnp.sum(jnp.sin(jax.vmap(made)(u)) * jnp.cos(jnp.arange(D_MODEL)))


def cut(made, rank, state=None, **settings):
    maps = settings.pop("maps", True)
    method = Data(inputs(), maps=maps)
    return compress(made, state, policy=Ranks(rank), method=method, **settings)


def test_a_layer_with_maps_keeps_the_laws():
    small, _ = cut(layer(), 3)
    assert (small.d_state, small.convolved_states) == (3, N)
    check_layer(small, inputs(2)[0])


def test_maps_save_what_no_selection_does():
    made, u = repeated(), inputs(2)
    expected = outputs(made, u)
    mapped, selected = (cut(made, N // 2, maps=maps)[0] for maps in (True, False))
    np.testing.assert_allclose(outputs(mapped, u), expected, atol=2e-5 * expected.std())
    assert np.std(outputs(selected, u) - expected) > 1e-3 * expected.std()
    assert selected.B_map is None


def test_a_layer_with_maps_is_cut_within_them():
    made, u = layer(), inputs()
    first, _ = cut(made, 6)
    second, _ = cut(first, 3, maps=None)
    at_once, _ = cut(made, 3)
    assert second.B_map.shape == at_once.B_map.shape == (2, N, 3)
    errors = [np.std(outputs(small, u) - outputs(made, u)) for small in (second, at_once)]
    assert errors[0] < 1.5 * errors[1]


def test_gradients_go_along_within_the_maps():
    """Where nothing is lost, the carried gradient is the gradient."""
    made, u = repeated(), jnp.asarray(inputs(4))
    wide, _ = cut(made, N - 1)
    small, carried = cut(wide, N // 2, optax.TraceState(gradient(wide, u)))
    expected = gradient(small, u)
    for name in ("B_map", "C_map"):
        x, y = getattr(carried.trace, name), getattr(expected, name)
        cosine = np.sum(x * y) / np.sqrt(np.sum(np.square(x)) * np.sum(np.square(y)))
        assert cosine > 0.99


def kinds(params):
    return jax.tree.map(lambda x: "vector" if x.ndim == 1 else "matrix", params)


OPTIMIZERS = {
    "adam": optax.adam(RATE),
    "adafactor": optax.adafactor(RATE, min_dim_size_to_factor=2, momentum=0.9),
    "adafactor of large arrays": optax.adafactor(RATE),
    "adagrad": optax.adagrad(RATE),
    "amsgrad": optax.amsgrad(RATE),
    "lion": optax.lion(RATE),
    "momentum": optax.sgd(RATE, momentum=0.9),
    "novograd": optax.novograd(RATE),
    "rmsprop": optax.rmsprop(RATE, centered=True, momentum=0.9),
    "rprop": optax.rprop(RATE),
    "sm3": optax.sm3(RATE),
    "yogi": optax.yogi(RATE),
    "prodigy": contrib.prodigy(),
    "schedule free": contrib.schedule_free_adamw(RATE),
    "several steps": optax.MultiSteps(optax.adam(RATE), 3),
    "groups": optax.multi_transform(
        {"vector": optax.adam(RATE), "matrix": optax.rmsprop(RATE, momentum=0.9)}, kinds
    ),
}


def shapes(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def trained(optimizer, made, steps=3):
    state = optimizer.init(made)
    for step in range(steps):
        updates, state = optimizer.update(gradient(made, jnp.asarray(inputs(step))), state, made)
        made = eqx.apply_updates(made, updates)
    return made, state


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("adam", "transport"),
        ("sm3", "reset"),
        *(
            pytest.param(name, mode, marks=pytest.mark.slow)
            for name in OPTIMIZERS
            for mode in MODES
            if (name, mode) not in (("adam", "transport"), ("sm3", "reset"))
        ),
    ],
)
def test_every_optimizer_goes_on_with_the_maps(name, mode):
    optimizer = OPTIMIZERS[name]
    made, state = trained(optimizer, layer())
    small, carried = cut(made, 4, state, moments=mode)
    assert shapes(carried) == shapes(optimizer.init(small))
    new = gradient(small, jnp.asarray(inputs(7)))
    updates, _ = optimizer.update(new, carried, small)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(updates))
    if name in ("adam", "adagrad", "rmsprop", "yogi") and mode == "transport":
        size = np.sqrt(np.mean(np.square(updates.B_map)))
        other = np.sqrt(np.mean(np.square(updates.in_proj.weight)))
        assert 0.02 * other < size < 5 * other


def test_a_copy_of_the_parameters_gets_the_maps():
    made: Any = layer()
    average = jax.tree.map(lambda x: 1.01 * x, made)
    small, (_, copy) = cut(made, 4, (optax.adam(RATE).init(made), average))
    np.testing.assert_array_equal(copy.B_map, small.B_map)
    np.testing.assert_array_equal(copy.in_proj.weight, average.in_proj.weight)


def test_a_stack_gets_maps_of_one_shape():
    keys = jax.random.split(jax.random.key(0), 2)
    stack = eqx.filter_vmap(lambda key: Mamba2.init(D_MODEL, N, key=key, headdim=3))(keys)
    state = optax.adam(RATE).init(stack)
    u = inputs()
    small, carried = compress(stack, state, policy=Ranks(3), method=Data(inputs=[u, u], maps=True))
    assert small.B_map.shape == carried[0].mu.B_map.shape == (2, 1, N, 3)


def test_a_folder_says_that_it_is_not_the_standard_layout(tmp_path):
    model, state = language_model(
        lambda key: Mamba2.init(8, 6, key=key, headdim=4),
        vocabulary=11,
        d_model=8,
        blocks=2,
        key=jax.random.key(0),
    )
    tokens = np.random.default_rng(0).integers(0, 11, (4, 20)).astype(np.int32)
    rng = np.random.default_rng(0)
    seen = [rng.standard_normal((2, 20, 8)) for _ in range(2)]
    small, _ = compress((model, state), policy=Ranks(3), method=Data(inputs=seen, maps=True))
    save(tmp_path, small[0])
    found = read_config(tmp_path)
    assert found["model_type"] == "mamba2_mapped"
    assert (found["state_size"], found["mapped_state_size"]) == (6, 3)
    again = load(tmp_path)
    run = eqx.filter_jit(lambda model: model(jnp.asarray(tokens[0]), eqx.nn.State(model))[0])
    np.testing.assert_array_equal(run(again), run(small[0]))
    mixed = eqx.tree_at(lambda m: m.blocks[1], small[0], model.blocks[1])
    with pytest.raises(ValueError, match=r"^blocks\[1\].ssm must have maps if blocks\[0\].ssm has"):
        save(tmp_path / "mixed", mixed)
