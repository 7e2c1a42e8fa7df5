"""Kernels are switched off in one place, and plain loops give the same numbers."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import GLA, LRU, S5, Bidirectional, DeltaNet, Mamba, Mamba2
from zoo.recurrence.compiled import native
from zoo.recurrence.plain import kernels_allowed, plainly

LAYERS = {
    "lru": lambda key: LRU.init(4, 6, key=key),
    "s5": lambda key: S5.init(4, 6, key=key),
    "mamba": lambda key: Mamba.init(4, 3, key=key),
    "mamba2": lambda key: Mamba2.init(4, 3, key=key, headdim=4),
    "gla": lambda key: GLA.init(4, 3, key=key, heads=2),
    "deltanet": lambda key: DeltaNet.init(4, 3, key=key, heads=2),
    "both ways": lambda key: Bidirectional(LRU.init(4, 6, key=key), LRU.init(4, 5, key=key)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_plain_loops_give_the_numbers_of_the_layer(name, getkey):
    layer, u = LAYERS[name](getkey()), jax.random.normal(getkey(), (2, 37, 4))
    wanted = jax.vmap(layer)(u)
    with plainly():
        found = jax.jit(lambda u: jax.vmap(layer)(u))(u)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_intervals_too(getkey):
    layer, u = S5.init(4, 6, key=getkey()), jax.random.normal(getkey(), (37, 4))
    dt = jnp.linspace(0.5, 2, 37)
    with plainly():
        found = jax.jit(lambda u, dt: layer(u, dt))(u, dt)
    np.testing.assert_allclose(found, layer(u, dt), atol=2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_plain_loops_are_traced_for_any_length(name, getkey):
    """And hold nothing but StableHLO, for both platforms."""
    layer = LAYERS[name](getkey())
    (b, L) = jax.export.symbolic_shape("b, L")
    shape = jax.ShapeDtypeStruct((b, L, 4), jnp.float32)
    with plainly():
        exported = jax.export.export(
            jax.jit(lambda u: jax.vmap(layer)(u)), platforms=("cpu", "cuda")
        )(shape)
    called = re.findall(r"custom_call @([\w.$]+)", exported.mlir_module())
    assert set(called) <= {"shape_assertion"}
    u = jax.random.normal(getkey(), (2, 11, 4))
    np.testing.assert_allclose(exported.call(u), jax.vmap(layer)(u), atol=2e-5)


def test_kernels_are_off_inside_and_on_again_after_it():
    before = kernels_allowed(), native("float32")
    with plainly():
        assert not kernels_allowed()
        assert not native("float32")
    assert (kernels_allowed(), native("float32")) == before


def test_the_environment_switches_kernels_off(monkeypatch):
    monkeypatch.setenv("COMPRESSM_KERNELS", "0")
    assert not kernels_allowed()
    assert not native("float32")
    monkeypatch.setenv("COMPRESSM_KERNELS", "no")
    with pytest.raises(ValueError, match=r"`COMPRESSM_KERNELS` must be 0 or 1, got 'no'"):
        kernels_allowed()


LOWERED = """
import jax
from zoo import LRU
layer = LRU.init(4, 6, key=jax.random.key(0))
text = jax.jit(jax.vmap(layer)).lower(jax.numpy.zeros((8, 256, 4))).as_text()
print("zoo_" in text)
"""


@pytest.mark.parametrize(("value", "called"), [("0", "False"), ("1", "True")])
def test_a_process_without_kernels_lowers_to_none(value, called, monkeypatch):
    if not native("float32"):
        pytest.skip("no kernels are compiled here")
    monkeypatch.setenv("COMPRESSM_KERNELS", value)
    done = subprocess.run(
        [sys.executable, "-c", LOWERED], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == called
