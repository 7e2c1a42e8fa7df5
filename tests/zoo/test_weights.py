"""Tensors are read one by one, and the layout of mamba_ssm is read where it is safetensors."""

import json
import tracemalloc

import equinox as eqx
import jax
import numpy as np
import pytest
import safetensors.numpy

from zoo import Mamba, Mamba2, Mamba2Config, language_model
from zoo.pretrained import load, read_config, save
from zoo.pretrained.weights import read_tensors, stored_tensors

MAKERS = {
    "Mamba1": lambda key: Mamba.init(16, 4, key=key),
    "Mamba2": lambda key: Mamba2.init(16, 4, key=key, headdim=8),
}
LAYER_SETTINGS = {
    "Mamba1": {"d_state": 4},
    "Mamba2": {
        "layer": "Mamba2",
        "d_state": 4,
        "headdim": 8,
        "chunk_size": Mamba2Config.chunk_size,
        "dt_limit": [0.0, float("inf")],
    },
}


def model_of(kind):
    key = jax.random.key(0)
    return language_model(MAKERS[kind], vocabulary=16, d_model=16, blocks=2, key=key)[0]


def write_original(folder, kind, **changes):
    """The folder of `model_of(kind)` as mamba_ssm would write it, but for the pickle."""
    save(folder, model_of(kind))
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    tensors["lm_head.weight"] = tensors["backbone.embedding.weight"].copy()
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    config = {"d_model": 16, "n_layer": 2, "vocab_size": 13, "ssm_cfg": LAYER_SETTINGS[kind]}
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("kind", MAKERS)
def test_the_layout_of_mamba_ssm_is_read(kind, tmp_path):
    write_original(tmp_path, kind)
    model = load(tmp_path)
    assert eqx.tree_equal(model, model_of(kind))
    save(tmp_path / "again", model, config=read_config(tmp_path))
    assert eqx.tree_equal(load(tmp_path / "again"), model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_layer_idx": [1]}, r"`attn_layer_idx` must be \[\], got \[1\]"),
        ({"rms_norm": False}, "`rms_norm` must be true, got false"),
        (
            {"ssm_cfg": {"layer": "Mamba3"}},
            "`ssm_cfg.layer` must be one of Mamba1, Mamba2, got 'Mamba3'",
        ),
        ({"ssm_cfg": {"layer": [1]}}, r"`ssm_cfg.layer` must be one of Mamba1, Mamba2, got \[1\]"),
        ({"ssm_cfg": {"states": 3}}, r"`ssm_cfg` must have keys of .*, got 'states'"),
        ({"ssm_cfg": {"d_state": "x"}}, "`state_size` must be a whole number"),
        ({"ssm_cfg": [1]}, "`ssm_cfg` must be an object"),
        ({"d_model": "x"}, "`d_model` must be a whole number"),
    ],
)
def test_what_is_not_read_of_that_layout_is_named(changes, message, tmp_path):
    write_original(tmp_path, "Mamba1", **changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_no_more_than_one_tensor_is_in_memory_twice(tmp_path):
    """Of the files themselves nothing is: they are larger than what is allowed here."""
    rng = np.random.default_rng(0)
    tensors = {f"t{k}": rng.normal(size=(64, 1000)).astype(np.float32) for k in range(40)}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    total = sum(x.nbytes for x in tensors.values())
    tracemalloc.start()
    arrays = read_tensors(stored_tensors(tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(arrays) == list(stored_tensors(tmp_path))
    for name, x in tensors.items():
        np.testing.assert_array_equal(arrays[name], x)
    assert peak < 1.1 * total  # arrays of JAX may stand in memory of NumPy
