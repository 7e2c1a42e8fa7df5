"""Kernels with the narrower vectors of other CPUs, beside the widest that this one has."""

import os
import subprocess
import sys

import numpy as np
import pytest

from zoo.recurrence.compiled import native

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np
from zoo import LAYERS
from zoo.recurrence.choice import recurrence_form

u = jax.random.normal(jax.random.key(1), (3, 70, 12))
found = []
for name in sys.argv[2:]:
    settings = {"headdim": 4} if name == "mamba2" else {}
    settings |= {"heads": 2} if name in ("gla", "gated_deltanet") else {}
    layer = LAYERS[name](d_state=6, **settings).build(12, key=jax.random.key(0))
    with recurrence_form("fused", 32):
        step = jax.value_and_grad(lambda layer, u: jnp.sum(jax.vmap(layer)(u) ** 2), argnums=(0, 1))
        step = jax.jit(step).lower(layer, u).compile()
    assert "zoo_" in step.as_text(), name
    found += jax.tree.leaves(step(layer, u))
np.savez(sys.argv[1], *found)
"""


@pytest.mark.skipif(not native("float32"), reason="installed without a C++ compiler")
@pytest.mark.parametrize(
    ("lanes", "layers"),
    [
        (4, ("lru",)),
        *(
            pytest.param(
                lanes, ("lru", "mamba", "mamba2", "gla", "gated_deltanet"), marks=pytest.mark.slow
            )
            for lanes in (4, 8)
        ),
    ],
)
def test_narrow_vectors_give_the_numbers_of_wide_ones(lanes, layers, tmp_path):
    files = []
    for most in (lanes, 16):
        files.append(tmp_path / f"{most}.npz")
        settings = {"COMPRESSM_LANES": str(most), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", SCRIPT, str(files[-1]), *layers]
        subprocess.run(command, check=True, env={**os.environ, **settings})
    narrow, wide = (np.load(file) for file in files)
    assert narrow.files == wide.files
    for name in wide.files:
        largest = np.abs(wide[name]).max()
        np.testing.assert_allclose(narrow[name], wide[name], rtol=0, atol=2e-5 * largest)
