"""The same numbers as other people's implementations (`../shared/truth/parity`)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LRU, S5, Bidirectional, attention_scan
from zoo.pretrained.qwen3_next import qwen3_next_layer


def paired(a):
    return jnp.asarray(a[..., 0] + 1j * a[..., 1])


def s5(weights, config):
    """The public S5's arrays as ours; its bidirectional layer shares eigenvalues and B."""
    shared_arguments = {
        "Lambda": jnp.asarray(weights["Lambda_re"] + 1j * weights["Lambda_im"]),
        "B": paired(weights["B"]),
        "log_step": jnp.asarray(weights["log_step"][:, 0]),
        "discretization": config["discretization"],
    }
    D = jnp.asarray(weights["D"])
    if not config["conj_sym"]:  # both of a pair are there, so y = Re(C x), where ours is 2 Re(C x)
        return S5.from_continuous(C=paired(weights["C"]) / 2, D=D, **shared_arguments)
    if not config["bidirectional"]:
        return S5.from_continuous(C=paired(weights["C"]), D=D, **shared_arguments)
    return Bidirectional(
        S5.from_continuous(C=paired(weights["C1"]), D=D, **shared_arguments),
        S5.from_continuous(C=paired(weights["C2"]), D=jnp.zeros_like(D), **shared_arguments),
    )


def lru(weights, config):
    return LRU(**{name: jnp.asarray(value) for name, value in weights.items()})


@pytest.mark.parametrize("kind", [s5, lru], ids=["s5", "lru"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_parity(shared, kind, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    folders = sorted((shared / "truth" / "parity").glob(f"{kind.__name__}_*"))
    metas = {folder: json.loads((folder / "meta.json").read_text()) for folder in folders}
    layers = {f: meta for f, meta in metas.items() if "n_layers" not in meta["config"]}
    assert layers
    for folder, meta in layers.items():
        with np.load(folder / "weights.npz") as file:
            weights = {k: v.astype(precision) for k, v in file.items()}
        with np.load(folder / "io.npz") as file:
            io = dict(file.items())
        layer = kind(weights, meta["config"])
        y = layer(jnp.asarray(io["u"].astype(precision)))
        tolerances = meta["tolerance_float32"]
        if precision == "float32":
            atol = tolerances["y"]["atol"] * max(1, np.abs(io["y"]).max())
            np.testing.assert_allclose(y, io["y"], rtol=tolerances["y"]["rtol"], atol=atol)
        else:
            given = tolerances["y_f64 (test in x64)"]
            np.testing.assert_allclose(y, io["y_f64"], rtol=given["rtol"], atol=given["atol"])
            if not isinstance(layer, Bidirectional):
                response = layer.to_lti().frequency_response(io["freq_w"])
                np.testing.assert_allclose(response, io["freq_G"], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_gated_deltanet_layer_of_transformers(shared, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    folders = sorted((shared / "truth" / "parity").glob("gdn_hf_*"))
    assert folders
    for folder in folders:
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
    folders = sorted((shared / "truth" / "parity").glob("op_delta*"))
    assert folders
    for folder in folders:
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
