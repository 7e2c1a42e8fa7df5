"""The same numbers as other people's implementations (`../shared/truth/parity`)."""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LRU, S4D, S5, LinOSS, S5BothWays, attention_scan, classifier
from zoo.pretrained.qwen3_next import qwen3_next_layer


def paired(a):
    return jnp.asarray(a[..., 0] + 1j * a[..., 1])


def s5(weights, config):
    """The public S5's arrays as ours."""
    settings = {
        "discretization": config["discretization"],
        "conjugate_pairs": config["conj_sym"],
        "clip_eigenvalues": config.get("clip_eigs", False),
        "step_rescale": config.get("step_rescale", 1.0),
    }

    def half(C, D):
        return S5.from_continuous(
            jnp.asarray(weights["Lambda_re"] + 1j * weights["Lambda_im"]),
            paired(weights["B"]),
            paired(C),
            jnp.asarray(D),
            jnp.asarray(weights["log_step"][:, 0]),
            **settings,
        )

    D = weights["D"]
    if not config.get("bidirectional", False):
        return half(weights["C"], D)
    return S5BothWays.from_halves(half(weights["C1"], D), half(weights["C2"], D))


def lru(weights, config):
    return LRU(**{name: jnp.asarray(value) for name, value in weights.items()})


def s4d(weights, config):
    """B is one, and there is no D."""
    Lambda = jnp.asarray(-np.exp(weights["log_a_real"]) + 1j * weights["A_imag"])
    C = jnp.asarray(weights["C_re"] + 1j * weights["C_im"])
    D = jnp.zeros(len(C), weights["C_re"].dtype)
    return S4D.from_continuous(Lambda, jnp.ones_like(C), C, D, jnp.asarray(weights["log_dt"]))


def linoss(weights, config):
    """An oscillator of the peer is complex, and two here."""
    return LinOSS.from_published(
        jnp.asarray(weights["A_diag"]),
        jnp.asarray(weights["steps"]),
        paired(weights["B"]),
        paired(weights["C"]),
        jnp.asarray(weights["D"]),
        jnp.asarray(weights["G_diag"]) if config["damping"] else None,
        scheme=config["discretization"].lower(),
    )


LAYERS = {"s5": s5, "lru": lru, "s4d": s4d, "linoss": linoss, "dlinoss": linoss}


def folders(shared, kind, *, whole):
    """The folders of a kind of layer, or of whole models of it, and what their `meta.json` says."""
    found = {
        folder: json.loads((folder / "meta.json").read_text())
        for folder in sorted((shared / "truth" / "parity").glob(f"{kind}_*"))
    }
    return {f: meta for f, meta in found.items() if ("n_layers" in meta["config"]) == whole}


def arrays(folder, name, precision=None):
    with np.load(folder / f"{name}.npz") as file:
        return {k: v if precision is None else v.astype(precision) for k, v in file.items()}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_layers(shared, kind, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    found = folders(shared, kind, whole=False)
    assert found
    for folder, meta in found.items():
        layer = LAYERS[kind](arrays(folder, "weights", precision), meta["config"])
        io = arrays(folder, "io")
        y = layer(jnp.asarray(io["u"].astype(precision)))
        tolerances = meta["tolerance_float32"]
        if precision == "float32":
            atol = tolerances["y"]["atol"] * max(1, np.abs(io["y"]).max())
            np.testing.assert_allclose(y, io["y"], rtol=tolerances["y"]["rtol"], atol=atol)
        else:
            given = {"rtol": 1e-8, "atol": 1e-9} | tolerances.get("y_f64 (test in x64)", {})
            np.testing.assert_allclose(y, io["y_f64"], rtol=given["rtol"], atol=given["atol"])
            if "freq_G" in io and layer.is_causal:
                response = layer.to_lti().frequency_response(io["freq_w"])
                np.testing.assert_allclose(response, io["freq_G"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_gated_deltanet_layer_of_transformers(shared, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    found = sorted((shared / "truth" / "parity").glob("gdn_hf_*"))
    assert found
    for folder in found:
        meta = json.loads((folder / "meta.json").read_text())
        with np.load(folder / "weights.npz") as file:
            weights = {k: jnp.asarray(v.astype(precision)) for k, v in file.items()}
        with np.load(folder / "io.npz") as file:
            io = dict(file.items())
        config = meta["config"]
        layer = qwen3_next_layer(weights, key_heads=config["key_heads"], eps=config["rms_eps"])
        assert (layer.d_state, layer.values) == (config["key_dim"], config["value_dim"])
        y = jax.vmap(layer)(jnp.asarray(io["u"].astype(precision)))
        given = meta["tolerance_float32"]["y"]
        if precision == "float32":
            np.testing.assert_allclose(y, io["y"], **given)
        else:  # theirs computes its recurrence in single precision all the same
            apart = 5 * meta["observed"]["float32_vs_float64"]
            np.testing.assert_allclose(y, io["y_f64"], rtol=0, atol=apart)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_delta_rule_of_flash_linear_attention(shared, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    found = sorted((shared / "truth" / "parity").glob("op_delta*"))
    assert found
    for folder in found:
        meta = json.loads((folder / "meta.json").read_text())
        with np.load(folder / "io.npz") as file:
            io = {name: jnp.asarray(x.astype(precision)) for name, x in file.items()}
        q, k, v, beta, S0 = (io[name] for name in ("q", "k", "v", "beta", "S0"))
        none = jnp.zeros((*beta.shape, 1), precision)
        o, S = jax.vmap(attention_scan)(q * q.shape[-1] ** -0.5, k, v, none, beta, S0)
        if precision == "float32":
            np.testing.assert_allclose(o, io["o"], **meta["tolerance_float32"]["o"])
        else:
            np.testing.assert_allclose(o, io["o_f64"], rtol=0, atol=1e-12)
            np.testing.assert_allclose(S, io["S_f64"], rtol=0, atol=1e-12)


def nested(weights) -> Any:
    """Arrays by their paths, `params/encoder/bias`, as nested dictionaries."""
    tree: dict = {}
    for path, x in weights.items():
        *folders_, name = path.split("/")
        inner = tree
        for folder in folders_:
            inner = inner.setdefault(folder, {})
        inner[name] = x
    return tree


def dense(linear, weights):
    """An `eqx.nn.Linear` with a Flax layer's arrays, whose kernel is transposed."""
    parts = jnp.asarray(weights["kernel"].T), jnp.asarray(weights["bias"])
    return eqx.tree_at(lambda linear: (linear.weight, linear.bias), linear, parts)


def s5_settings(config):
    return {
        "norm": "batch" if config["batchnorm"] else "layer",
        "norm_first": config["prenorm"],
        "gate": {"gelu": "none"}.get(config["activation"], config["activation"]),
        "pooling": {"pool": "mean"}.get(config["mode"], config["mode"]),
    }


def lru_settings(config):
    return {
        "norm": config["norm"],
        "norm_first": config.get("prenorm", True),
        "pooling": config["pooling"],
    }


MODELS = {
    # layer, settings, name of the norm, d_model, channels, classes
    "s5m": (s5, s5_settings, "norm", "H", "d_input"),
    "lru": (lru, lru_settings, "normalization", "d_model", "d_input"),
}


def peer(kind, weights, config):
    """The classifier of a public code base as ours, with its running statistics."""
    make_layer, settings, norm_name, width, channels = MODELS[kind]
    tree = nested(weights)
    layers = [tree["params"]["encoder"][f"layers_{k}"] for k in range(config["n_layers"])]
    seqs = iter([make_layer(layer["seq"], config) for layer in layers])
    model, state = classifier(
        lambda key: next(seqs),
        input_kind="real",
        input_size=config[channels],
        classes=tree["params"]["decoder"]["bias"].size,
        d_model=config[width],
        blocks=config["n_layers"],
        norm_epsilon=1e-5 if settings(config)["norm"] == "batch" else 1e-6,  # as Flax has them
        key=jax.random.key(0),
        **settings(config),
    )
    blocks = []
    for k, (block, own) in enumerate(zip(model.blocks, layers, strict=True)):
        norm, given = block.norm, own[norm_name]
        if settings(config)["norm"] == "batch":
            _, mean, variance = state.get(norm.running)
            statistics = tree["batch_stats"]["encoder"][f"layers_{k}"][norm_name]
            mean, variance = (jnp.asarray(statistics[name]) for name in ("mean", "var"))
            state = state.set(norm.running, (jnp.asarray(100_000, jnp.int32), mean, variance))
        parts = jnp.asarray(given["scale"]), jnp.asarray(given["bias"])
        where = (lambda n: (n.weight, n.bias)) if hasattr(norm, "weight") else None
        where = where or (lambda n: (n.norm.weight, n.norm.bias))
        block = eqx.tree_at(lambda b: b.norm, block, eqx.tree_at(where, norm, parts))
        if block.glu is not None:
            block = eqx.tree_at(lambda b: b.glu.gate, block, dense(block.glu.gate, own["out2"]))
        if hasattr(block.glu, "linear"):
            block = eqx.tree_at(lambda b: b.glu.linear, block, dense(block.glu.linear, own["out1"]))
        blocks.append(block)
    encoder = dense(model.encoder.linear, tree["params"]["encoder"]["encoder"])
    head = dense(model.head, tree["params"]["decoder"])
    parts = tuple(blocks), encoder, head
    model = eqx.tree_at(lambda m: (m.blocks, m.encoder.linear, m.head), model, parts)
    return eqx.nn.inference_mode(model), state


@pytest.mark.parametrize("kind", MODELS)
def test_whole_classifiers(shared, kind):
    found = folders(shared, kind, whole=True)
    assert found
    for folder, meta in found.items():
        model, state = peer(kind, arrays(folder, "weights"), meta["config"])
        io, given = arrays(folder, "io"), meta["tolerance_float32"]["y"]
        logits = jax.vmap(lambda u, m=model, s=state: m(u, s)[0])(jnp.asarray(io["u"]))
        said = jax.nn.log_softmax(logits)
        np.testing.assert_allclose(said, io["y"], rtol=given["rtol"], atol=given["atol"])
