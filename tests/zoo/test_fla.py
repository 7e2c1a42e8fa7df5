"""Checkpoints of flash-linear-attention: their numbers by NumPy, round trips, named errors."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from zoo import LRU, generate, language_model
from zoo.pretrained import load, read_config, save

COMMON = {
    "vocab_size": 11,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "norm_eps": 1e-6,
    "intermediate_size": 20,
    "attn_mode": "chunk",
    "fuse_norm": True,
}
CONFIGS = {
    "delta_net": {"num_heads": 2, "expand_k": 0.5, "expand_v": 1.0},
    "delta_net gated": {"num_heads": 3, "use_gate": True, "conv_size": 3, "allow_neg_eigval": True},
    "delta_net bare": {"num_heads": 2, "use_short_conv": False, "tie_word_embeddings": True},
    "gated_deltanet": {"num_heads": 2, "head_dim": 3, "expand_v": 2.0},
    "gated_deltanet shared": {
        "num_heads": 2,
        "num_v_heads": 4,
        "head_dim": 4,
        "expand_v": 0.75,
        "use_gate": False,
        "intermediate_size": None,
        "hidden_ratio": 1,
    },
}
QUICK = ("delta_net", "gated_deltanet shared")
CASES = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS]
)


def config_of(name):
    return COMMON | CONFIGS[name] | {"model_type": name.split()[0]}


def made(config):
    """Tensors of a model as flash-linear-attention calls them."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32) / shape[-1] ** 0.5  # noqa: E731
    H, heads = config["hidden_size"], config["num_heads"]
    gated = config["model_type"] == "gated_deltanet"
    if gated:
        value_heads = config.get("num_v_heads") or heads
        keys, values = heads * config["head_dim"], value_heads
        values *= int(config["head_dim"] * config["expand_v"])
    else:
        value_heads = heads
        keys, values = (int(H * config.get(name, 1.0)) for name in ("expand_k", "expand_v"))
    inside = config.get("intermediate_size") or 256
    tensors = {"model.embeddings.weight": draw(config["vocab_size"], H)}
    for i in range(config["num_hidden_layers"]):
        own = {
            f"attn.{p}_proj.weight": draw(n, H)
            for p, n in zip("qkv", (keys, keys, values), strict=True)
        }
        if config.get("use_short_conv", True):
            taps = config.get("conv_size", 4)
            own |= {
                f"attn.{p}_conv1d.weight": draw(n, 1, taps)
                for p, n in zip("qkv", (keys, keys, values), strict=True)
            }
        if config.get("use_gate", gated):
            own["attn.g_proj.weight"] = draw(values, H)
        if gated:
            own["attn.a_proj.weight"] = draw(value_heads, H)
            own["attn.A_log"] = rng.uniform(0, 1, value_heads).astype(np.float32)
            own["attn.dt_bias"] = rng.normal(size=value_heads).astype(np.float32)
        own["attn.b_proj.weight"] = draw(value_heads, H)
        own["attn.o_norm.weight"] = 1 + draw(values // value_heads)
        own["attn.o_proj.weight"] = draw(H, values)
        own["attn_norm.weight"], own["mlp_norm.weight"] = 1 + draw(H), 1 + draw(H)
        own["mlp.gate_proj.weight"], own["mlp.up_proj.weight"] = draw(inside, H), draw(inside, H)
        own["mlp.down_proj.weight"] = draw(H, inside)
        tensors |= {f"model.layers.{i}.{k}": x for k, x in own.items()}
    tensors["model.norm.weight"] = 1 + draw(H)
    if not config.get("tie_word_embeddings", False):
        tensors["lm_head.weight"] = draw(config["vocab_size"], H)
    return tensors


def written(folder, config):
    folder.mkdir()
    safetensors.numpy.save_file(made(config), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def silu(x):
    return x / (1 + np.exp(-x))


def rms(x, weight, eps=1e-6):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def attention(x, t, config):
    """One layer on x [L H], sample by sample."""
    heads = config["num_heads"]
    made_of = {}
    for p in "qkv":
        y = x @ t[f"attn.{p}_proj.weight"].T
        if f"attn.{p}_conv1d.weight" in t:
            weight = t[f"attn.{p}_conv1d.weight"][:, 0]
            padded = np.concatenate([np.zeros((weight.shape[1] - 1, y.shape[1])), y])
            y = sum(weight[:, i] * padded[i : i + len(x)] for i in range(weight.shape[1]))
        made_of[p] = silu(y)
    value_heads = len(t["attn.b_proj.weight"])
    q, k = (made_of[p].reshape(len(x), heads, -1) for p in "qk")
    q, k = (a / np.sqrt(np.sum(a**2, axis=-1, keepdims=True) + 1e-6) for a in (q, k))
    q, k = (np.repeat(a, value_heads // heads, axis=1) for a in (q, k))
    v = made_of["v"].reshape(len(x), value_heads, -1)
    beta = 1 / (1 + np.exp(-x @ t["attn.b_proj.weight"].T))
    beta = beta * (2 if config.get("allow_neg_eigval") else 1)
    decay = np.ones_like(beta)
    if "attn.A_log" in t:
        steps = np.log1p(np.exp(x @ t["attn.a_proj.weight"].T + t["attn.dt_bias"]))
        decay = np.exp(-np.exp(t["attn.A_log"]) * steps)
    S, o = np.zeros((value_heads, k.shape[2], v.shape[2])), np.zeros(v.shape)
    for i in range(len(x)):
        S = decay[i][:, None, None] * S
        new = beta[i][:, None] * (v[i] - np.einsum("hkv,hk->hv", S, k[i]))
        S = S + np.einsum("hk,hv->hkv", k[i], new)
        o[i] = np.einsum("hkv,hk->hv", S, q[i] * k.shape[2] ** -0.5)
    o = rms(o, t["attn.o_norm.weight"]).reshape(len(x), -1)
    if "attn.g_proj.weight" in t:
        o = o * silu(x @ t["attn.g_proj.weight"].T)
    return o @ t["attn.o_proj.weight"].T


def logits_by_numpy(tensors, config, tokens):
    x = np.float64(tensors["model.embeddings.weight"])[tokens]
    for i in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{i}."
        t = {
            k.removeprefix(prefix): np.float64(a)
            for k, a in tensors.items()
            if k.startswith(prefix)
        }
        x = x + attention(rms(x, t["attn_norm.weight"]), t, config)
        h = rms(x, t["mlp_norm.weight"])
        up = silu(h @ t["mlp.gate_proj.weight"].T) * (h @ t["mlp.up_proj.weight"].T)
        x = x + up @ t["mlp.down_proj.weight"].T
    head = tensors.get("lm_head.weight", tensors["model.embeddings.weight"])
    return rms(x, tensors["model.norm.weight"]) @ head.T


@CASES
def test_a_model_computes_what_its_tensors_say(name, tmp_path):
    config, tokens = config_of(name), np.random.default_rng(1).integers(0, 11, 25)
    model = load(written(tmp_path / "theirs", config))
    logits, _ = eqx.filter_jit(lambda m, x: m(x, eqx.nn.State(m)))(model, jnp.asarray(tokens))
    expected = logits_by_numpy(made(config), config, tokens)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    drawn, _ = generate(model, tokens[None, :20], 5, temperature=0)
    again = np.concatenate([tokens[:20], drawn[0][:-1]])
    greedy = logits_by_numpy(made(config), config, again)[19:].argmax(axis=1)
    np.testing.assert_array_equal(drawn[0], greedy)


@CASES
def test_what_is_read_is_written_back(name, tmp_path):
    config = config_of(name)
    theirs = written(tmp_path / "theirs", config)
    model = load(theirs)
    save(tmp_path / "ours", model, config=read_config(theirs))
    ours = safetensors.numpy.load_file(tmp_path / "ours" / "model.safetensors")
    expected = made(config)
    assert ours.keys() == expected.keys()
    for key, x in expected.items():
        np.testing.assert_array_equal(ours[key], x, err_msg=key)
    kept = read_config(tmp_path / "ours")
    sizes = {"intermediate_size": None}  # which may be given by a ratio alone
    assert {k: kept[k] for k in config if k not in sizes} == {
        k: x for k, x in config.items() if k not in sizes
    }
    assert eqx.tree_equal(load(tmp_path / "ours"), model)


def test_fewer_keys_are_written_too(tmp_path):
    model = load(written(tmp_path / "theirs", config_of("gated_deltanet shared")))
    blocks = [replace(block, ssm=block.ssm.first_states(3)) for block in model.blocks]
    save(tmp_path / "small", replace(model, blocks=tuple(blocks)))
    assert (read_config(tmp_path / "small")["head_dim"], blocks[0].ssm.values) == (3, 3)
    again = load(tmp_path / "small").blocks[1].ssm
    assert again.d_state == 3
    np.testing.assert_array_equal(again.qkv.conv1d.weight, blocks[1].ssm.qkv.conv1d.weight)


@pytest.mark.parametrize("name", ["delta_net", "gated_deltanet shared"])
def test_maps_are_written_in_a_layout_of_their_own(name, tmp_path):
    """Of another `model_type`, so that nobody reads the model without them."""
    model = load(written(tmp_path / "theirs", config_of(name)))
    blocks = [replace(b, ssm=b.ssm.with_maps().first_states(2)) for b in model.blocks]
    small = replace(model, blocks=tuple(blocks))
    save(tmp_path / "ours", small, config=read_config(tmp_path / "theirs"))
    config = read_config(tmp_path / "ours")
    assert config["model_type"] == f"{name.split()[0]}_mapped"
    assert config["mapped_key_dim"] == 2
    assert eqx.tree_equal(load(tmp_path / "ours"), small)
    mixed = replace(model, blocks=(blocks[0], model.blocks[1]))
    with pytest.raises(ValueError, match="must have maps if"):
        save(tmp_path / "mixed", mixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm": "sum"}, "`qk_norm` must be \"l2\", got 'sum'"),
        ({"attn": {"layers": [0]}}, "`attn` must be null, got"),
        ({"num_heads": 5}, "heads must divide the keys and the values of all"),
        ({"conv_size": 0}, "`conv_size` must be a whole number from 1"),
        ({"expand_k": 0}, "`expand_k` must be a number of more than 0"),
        ({"hidden_act": "relu"}, '`hidden_act` must be "swish", got "relu"'),
        ({"use_gate": True}, r"attn\.g_proj\.weight is missing"),
    ],
)
def test_what_is_not_read_is_named(change, message, tmp_path):
    folder = written(tmp_path / "theirs", config_of("delta_net"))
    (folder / "config.json").write_text(json.dumps(config_of("delta_net") | change))
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_what_the_layout_has_no_place_for_is_said(tmp_path):
    model = load(written(tmp_path / "theirs", config_of("delta_net")))
    mixers, _ = language_model(
        lambda key: model.blocks[0].ssm, vocabulary=11, d_model=12, blocks=1, key=jax.random.key(0)
    )
    with pytest.raises(
        ValueError, match=r"blocks\[0\] must be a MLP.* with a DeltaNet, got a MixerBlock"
    ):
        save(tmp_path / "ours", mixers)
    other = replace(model.blocks[0].ssm, eps=1e-3)
    uneven = tuple(replace(block, ssm=other) for block in model.blocks)
    with pytest.raises(
        ValueError, match=r"blocks\[0\]\.ssm must have the eps of the norms, .*got 0.001"
    ):
        save(tmp_path / "ours", replace(model, blocks=uneven))
    plain, _ = language_model(
        lambda key: LRU.init(12, 4, key=key),
        vocabulary=11,
        d_model=12,
        blocks=1,
        key=jax.random.key(0),
    )
    with pytest.raises(
        ValueError, match="layer or more of Mamba or Mamba2 or DeltaNet or GatedDeltaNet"
    ):
        save(tmp_path / "ours", plain)
