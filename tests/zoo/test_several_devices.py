"""Kernels on several devices: each goes through its own sequences, and nothing is gathered."""

import os
import subprocess
import sys

import pytest

from zoo.recurrence.compiled import native

DEVICES = 8

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np, equinox as eqx
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from zoo import LAYERS, linear_recurrence
from zoo.recurrence.choice import recurrence_form
from zoo.recurrence.compiled import native

KERNELS = {"lru": "zoo_lti", "mamba": "zoo_selective", "gated_deltanet": "zoo_attention"}
mesh = jax.make_mesh((8,), ("all",), axis_types=(AxisType.Auto,))
assert jax.device_count() == 8 and native("float32")
u = jax.random.normal(jax.random.key(1), (16, 20, 8))
placed = jax.device_put(u, NamedSharding(mesh, P("all")))


def sum_of(layer, u):
    return jnp.sum(jax.vmap(layer)(u) ** 2)


def by_devices(layer, u):
    def of_one(layer, u):
        return jax.lax.psum(sum_of(layer, u), "all")

    arrays, static = eqx.partition(layer, eqx.is_array)
    parted = jax.shard_map(
        lambda arrays, u: of_one(eqx.combine(arrays, static), u),
        mesh=mesh, in_specs=(P(), P("all")), out_specs=P(), check_vma=False,
    )
    return parted(arrays, u)


def close(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))


for name in sys.argv[1:]:
    kernel = KERNELS[name]
    layer = LAYERS[name](d_state=4).build(8, key=jax.random.key(0))
    with recurrence_form("fused", 64):
        expected = jax.jit(jax.value_and_grad(sum_of, argnums=(0, 1)))(layer, u)
        for way in (sum_of, by_devices):
            step = jax.jit(jax.value_and_grad(way, argnums=(0, 1))).lower(layer, placed).compile()
            text = step.as_text()
            assert text.count(kernel) >= 2, (name, way)
            assert "all-gather" not in text, (name, way)
            close(step(layer, placed), expected)
    # forward alone, the kernel is in what is traced when the program is lowered
    with recurrence_form("fused", 64):
        forward = jax.jit(jax.vmap(layer)).lower(placed).compile()
        assert kernel in forward.as_text() and "all-gather" not in forward.as_text()
        close(forward(placed), jax.vmap(layer)(u))

# states, of coefficients that are one for all or of each sequence; and several models at once
a = jax.random.uniform(jax.random.key(2), (16, 20, 8))
parted = jax.device_put(a, NamedSharding(mesh, P("all")))
step = jax.jit(jax.vmap(linear_recurrence)).lower(parted, placed).compile()
assert "zoo_recurrence" in step.as_text() and "all-gather" not in step.as_text()
close(step(parted, placed), jax.vmap(linear_recurrence)(a, u))
layer = LAYERS["lru"](d_state=4).build(8, key=jax.random.key(0))
two = jax.tree.map(lambda x: jnp.stack([x, x]), layer)
with recurrence_form("fused", 64):
    close(jax.jit(jax.vmap(sum_of, in_axes=(0, None)))(two, placed)[1], sum_of(layer, u))
"""


@pytest.mark.skipif(not native("float32"), reason="installed without a C++ compiler")
@pytest.mark.parametrize(
    "name", ["lru", *(pytest.param(n, marks=pytest.mark.slow) for n in ("mamba", "gated_deltanet"))]
)
def test_each_device_goes_through_its_sequences(name):
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
    }
    command = [sys.executable, "-c", SCRIPT, name]
    subprocess.run(command, check=True, env={**os.environ, **settings})
