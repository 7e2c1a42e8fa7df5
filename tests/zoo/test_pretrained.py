"""Checkpoints of Hugging Face: the fixture's numbers, exact round trips, named errors."""

import dataclasses
import json
import shutil
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from zoo import LRU, Mamba, Mamba2, generate, language_model
from zoo.layers.affine import Linear
from zoo.layers.causal_conv import CausalConv
from zoo.pretrained.checkpoint import load, read_config, save
from zoo.pretrained.settings import share_of, times
from zoo.recurrence.selective import selective_scan

MAKERS = {
    "mamba": lambda key: Mamba.init(8, 4, key=key, bias=True, dt_rank=3),
    "mamba tied A": lambda key: Mamba.init(8, 4, key=key, tied=True, conv_bias=False),
    "mamba2": lambda key: Mamba2.init(8, 4, key=key, headdim=4, n_groups=2, dt_limit=(0.0, 0.5)),
}


def small(maker, key, **settings):
    model, _ = language_model(maker, vocabulary=11, d_model=8, blocks=2, key=key, **settings)
    return model


def tensors_of(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def same_tensors(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        assert a[name].tobytes() == b[name].tobytes(), name


@eqx.filter_jit
def logits_of(model, tokens):
    state = eqx.nn.State(model)
    return jax.vmap(lambda row: model(row, state)[0])(tokens)


@eqx.filter_jit
def streams(model, tokens):
    """The residual stream after each block, the last one after the final norm, and the carries."""

    def one(tokens):
        h, found, after = model.embedding.weight[tokens], [], []
        for block, carry in zip(model.blocks, model.init_state(), strict=True):
            carry, h = block.run(carry, h)
            after.append(carry)
            found.append(h)
        return [*found, jax.vmap(model.norm.norm)(h)], after

    return jax.vmap(one)(tokens)


FIXTURES = ["hf_mamba_*", "hf_mamba2_*"]


@pytest.fixture(params=FIXTURES)
def fixtures(request, shared):
    folders = sorted((shared / "truth" / "parity").glob(request.param))
    if not folders:
        pytest.skip(f"no {request.param} in ../shared/truth/parity")
    return folders


def test_parity_in_single_precision(fixtures):
    for folder in fixtures:
        io, meta = np.load(folder / "io.npz"), json.loads((folder / "meta.json").read_text())
        given = meta["tolerance_float32"]
        model = load(folder)
        tokens = jnp.asarray(io["input_ids"])
        np.testing.assert_allclose(logits_of(model, tokens), io["logits"], **given["logits"])
        hidden, carries = streams(model, tokens)
        for ours, theirs in zip(hidden[: len(carries) - 1], io["hidden_states"], strict=False):
            np.testing.assert_allclose(ours[0], theirs, **given["hidden_states"])
        np.testing.assert_allclose(hidden[-1][0], io["hidden_states"][-1], **given["hidden_states"])
        for i, carry in enumerate(carries):
            window = jnp.swapaxes(carry.window, 1, 2)
            np.testing.assert_allclose(window, io[f"conv_state_{i}"], **given["states"])
            np.testing.assert_allclose(carry.ssm, io[f"ssm_state_{i}"], **given["states"])
        prompt, expected = io["gen_prompt"], io["gen_sequences"]
        count = expected.shape[1] - prompt.shape[1]
        drawn, _ = generate(model, prompt, count, temperature=0)
        np.testing.assert_array_equal(drawn, expected[:, prompt.shape[1] :])


def test_parity_in_double_precision(fixtures, x64):
    for folder in fixtures:
        io, meta = np.load(folder / "io.npz"), json.loads((folder / "meta.json").read_text())
        model = jax.tree.map(
            lambda x: x.astype(float) if eqx.is_inexact_array(x) else x, load(folder)
        )
        given = meta["tolerance_float32"]["logits_f64 (test run in x64)"]
        logits = logits_of(model, jnp.asarray(io["input_ids"][:1]))[0]
        np.testing.assert_allclose(logits, io["logits_f64"], **given)
        if meta["cls"] == "MambaForCausalLM":
            x, dt, A, B, C, D = (io[f"layer0_f64_scan_{name}"] for name in ("u", *("dt", *"ABCD")))
            y, _ = selective_scan(*(jnp.asarray(a) for a in (x, dt, A, B, C)))
            np.testing.assert_allclose(y + D * x, io["layer0_f64_scan_y"], **given)


def test_the_fixture_is_written_back_exactly(fixtures, tmp_path):
    for folder in fixtures:
        save(tmp_path, load(folder), config=read_config(folder))
        same_tensors(tensors_of(folder), tensors_of(tmp_path))
        assert read_config(tmp_path) == read_config(folder)


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_saved_is_loaded(maker, getkey, tmp_path):
    model = small(MAKERS[maker], getkey(), tied=maker != "mamba2")
    save(tmp_path / "a", model)
    again = load(tmp_path / "a")
    save(tmp_path / "b", again)
    same_tensors(tensors_of(tmp_path / "a"), tensors_of(tmp_path / "b"))
    assert read_config(tmp_path / "a") == read_config(tmp_path / "b")
    if maker != "mamba tied A":  # which comes back with A written out
        assert eqx.tree_equal(again, model)


@pytest.mark.parametrize(("d_model", "d_inner"), [(8, 12), (49, 10), (3, 10)])
def test_channels_that_are_no_multiple_come_back(d_model, d_inner, getkey, tmp_path):
    def make(key):
        layer = Mamba.init(d_model, 4, key=key, dt_rank=3)
        rows = jnp.concatenate([layer.in_proj.weight] * 4)[: 2 * d_inner]
        narrow = {
            "in_proj": Linear(rows),
            "conv1d": CausalConv.init(d_inner, 4, bias=True, key=key),
            "x_proj": Linear.init(d_inner, 3 + 2 * 4, use_bias=False, key=key),
            "dt_proj": Linear.init(3, d_inner, key=key),
            "A_log": jnp.zeros((d_inner, 4)),
            "D": jnp.ones(d_inner),
            "out_proj": Linear.init(d_inner, d_model, use_bias=False, key=key),
        }
        return dataclasses.replace(layer, **narrow)

    model, _ = language_model(make, vocabulary=11, d_model=d_model, blocks=1, key=getkey())
    save(tmp_path, model)
    assert eqx.tree_equal(load(tmp_path), model)
    assert all(times(h, share_of(d, h)) == d for d in range(1, 200) for h in range(1, 70))


def test_half_precision_keeps_its_bits(getkey, tmp_path):
    model = small(MAKERS["mamba"], getkey())
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x, model)
    save(tmp_path, half)
    again = load(tmp_path)
    assert read_config(tmp_path)["dtype"] == "bfloat16"
    assert eqx.tree_equal(again, half)


def test_pieces_are_read(getkey, tmp_path):
    model = small(MAKERS["mamba2"], getkey())
    save(tmp_path, model)
    tensors = tensors_of(tmp_path)
    names = sorted(tensors)
    places = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        piece = {name: tensors[name] for name in names if places[name] == file}
        safetensors.numpy.save_file(piece, tmp_path / file)
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert eqx.tree_equal(load(tmp_path), model)
    other = {names[0]: np.zeros_like(tensors[names[0]])}  # which the index names another file for
    piece = safetensors.numpy.load_file(tmp_path / "model-2.safetensors") | other
    safetensors.numpy.save_file(piece, tmp_path / "model-2.safetensors")
    assert eqx.tree_equal(load(tmp_path), model)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-1\.safetensors is missing, although"):
        load(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, small(MAKERS["mamba"], jax.random.key(0)))
    return folder


def broken(change):
    """A change to (tensors, config)."""

    def apply(folder):
        tensors, config = tensors_of(folder), read_config(folder)
        change(tensors, config)
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))

    return apply


LAYER = "backbone.layers.1.mixer."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop(LAYER + "A_log"), r"layers\.1\.mixer\.A_log is missing"),
        (lambda t, c: t.update({LAYER + "E": t[LAYER + "D"]}), r"mixer\.E is unexpected"),
        (
            lambda t, c: t.update({LAYER + "D": t[LAYER + "D"][:3]}),
            r"mixer\.D must have shape \(16,\), got \(3,\)",
        ),
        (lambda t, c: c.update(state_size=5), r"A_log must have shape \(16, 5\), got \(16, 4\)"),
        (lambda t, c: c.update(use_bias=False), r"in_proj\.bias is unexpected"),
        (lambda t, c: c.update(hidden_act="relu"), '`hidden_act` must be "silu", got "relu"'),
        (
            lambda t, c: c.update(model_type="gpt2"),
            '`model_type` must be one of mamba, mamba2, mamba2_mapped, delta_net.*, got "gpt2"',
        ),
        (
            lambda t, c: t.update({"lm_head.weight": t["backbone.embeddings.weight"] + 1}),
            r"lm_head\.weight must equal backbone\.embeddings\.weight",
        ),
        (
            lambda t, c: t.update({LAYER + "D": np.arange(16)}),
            "D in .* must have one of the dtypes F64, F32, F16, BF16, got I64",
        ),
        (
            lambda t, c: t.update({LAYER + "D": np.full(16, np.nan, np.float32)}),
            r"mixer\.D must hold finite numbers, got NaN or infinity",
        ),
        (
            lambda t, c: t.update({LAYER + "D": t[LAYER + "D"].astype(float)}),
            r"mixer\.D must be float32 or less where jax_enable_x64 is off, got float64",
        ),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(change, message, saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    broken(change)(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


SIZES = [0, -1, 1.5, "x", None, float("nan"), True, [3], {}, 10**12, 10**5000]
WRONG = {
    "vocab_size": SIZES,
    "hidden_size": SIZES,
    "state_size": SIZES,
    "num_hidden_layers": [*SIZES, 1_000_000_000],
    "conv_kernel": SIZES,
    "layer_norm_epsilon": ["x", None, float("nan"), float("inf"), -1, False, 10**400],
    "expand": [0, -2, None, "x", float("inf"), float("nan"), 1e300],
    "use_bias": [None, 1, "no"],
    "use_conv_bias": [None, 1, "no"],
    "tie_word_embeddings": [None, 0, "yes"],
}
WRONG_OF_ONE = {
    "mamba": {"time_step_rank": [*SIZES, "automatic"]},
    "mamba2": {
        "num_heads": SIZES,
        "head_dim": SIZES,
        "n_groups": SIZES,
        "chunk_size": SIZES,
        "time_step_limit": [None, 3, [0.0], [2, 1], [-1, 1], ["a", "b"], [0, {"__float__": "x"}]],
    },
}


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_settings_of_the_wrong_kind_are_named(kind, tmp_path):
    for key, values in (WRONG | WRONG_OF_ONE[kind]).items():
        for value in values:
            sys.set_int_max_str_digits(0)
            text = json.dumps({"model_type": kind, key: value})
            sys.set_int_max_str_digits(4300)
            (tmp_path / "config.json").write_text(text)
            with pytest.raises(ValueError, match=rf"`{key}` must be") as error:
                load(tmp_path)
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be JSON, got"),
        ("[" * 100_000, "must be JSON, got"),
        ("[]", "must hold an object, got a list"),
        ('{"model_type": "mamba", "model_type": "mamba2"}', "the key 'model_type' twice"),
        ('{"model_type": []}', r"`model_type` must be one of mamba, mamba2, .*got \[\]"),
        ('{"model_type": null}', "`model_type` must be one of mamba, mamba2, .*got null"),
        ('{"d_model": 768, "n_layer": 24, "ssm_cfg": {}}', "take the folder .* ends in -hf, or"),
    ],
)
def test_a_config_that_is_none_is_named(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "`weight_map` must be an object of file names, got null"),
        ('{"weight_map": ["a"]}', "`weight_map` must be an object of file names, got"),
        ('{"weight_map": {"a": 3}}', "`weight_map` must be an object of file names, got"),
        ("[]", "must hold an object, got a list"),
        ("{", "must be JSON, got"),
    ],
)
def test_an_index_that_is_none_is_named(text, message, saved, tmp_path):
    shutil.copy(saved / "config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=rf"index\.json:? {message}"):
        load(tmp_path)


def test_files_that_are_not_there_or_broken_are_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load(tmp_path)
    shutil.copy(saved / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(
        FileNotFoundError, match=r"holds neither model\.safetensors nor .*: .* with save_pretrained"
    ):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="must be a safetensors file, got"):
        load(tmp_path)


def test_a_tied_head_may_be_there_twice(saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    broken(lambda t, c: t.update({"lm_head.weight": t["backbone.embeddings.weight"]}))(folder)
    assert eqx.tree_equal(load(folder), load(saved))


def test_models_that_cannot_be_written_are_refused(getkey, tmp_path):
    with pytest.raises(
        ValueError, match="layer or more of Mamba or Mamba2 or DeltaNet or GatedDeltaNet"
    ):
        save(tmp_path, small(lambda key: LRU.init(8, 4, key=key), getkey()))
    with pytest.raises(ValueError, match="must have norms without bias, norm='rms'"):
        save(tmp_path, small(MAKERS["mamba"], getkey(), norm="layer"))
    sizes = iter([4, 6])
    uneven = small(lambda key: Mamba.init(8, next(sizes), key=key), getkey())
    with pytest.raises(
        ValueError, match=r"blocks\[1\]\.ssm must have, .*state_size=4, got state_size=6"
    ):
        save(tmp_path, uneven)
