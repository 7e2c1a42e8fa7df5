"""The same numbers as other people's implementations (`../shared/truth/parity`)."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from zoo import LRU, S5, Bidirectional


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
