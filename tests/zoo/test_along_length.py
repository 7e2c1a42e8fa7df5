"""Sequences in pieces on several devices: the numbers and gradients of one device."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from zoo import LAYERS, LRU, Bidirectional, Mamba, sharded_along_length

DEVICES = 8

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np, equinox as eqx
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from zoo import LAYERS, sharded_along_length

H, L, N = 8, 48, 4
mesh = jax.make_mesh((8,), ("length",), axis_types=(AxisType.Auto,))
u = jax.random.normal(jax.random.key(1), (L, H))
placed = jax.device_put(u, NamedSharding(mesh, P("length")))


def of_states(layer, name):
    \"\"\"Numbers that each device receives, by the formulas of the documentation.\"\"\"
    if name in ("lru", "s5"):
        return 7 * 2 * N
    if name == "s4d":
        return 7 * 2 * N * H
    if "linoss" in name:
        return 7 * (2 * N + 4 * N)
    if name == "mamba":
        return 7 * layer.d_inner * (N + 1) + layer.conv1d.weight.size
    if name == "mamba2":
        return 7 * (layer.d_inner * N + layer.heads) + layer.conv1d.weight.size
    states = layer.heads * N * layer.values
    conv = 0 if layer.qkv.conv1d is None else layer.qkv.conv1d.weight.size
    each = {"gla": layer.heads * N, "retnet": layer.heads}.get(name, layer.heads * N * N)
    return 7 * (states + each) + conv


def close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        scale = max(1e-2, float(jnp.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale)


for name in sys.argv[1:]:
    more = {"headdim": 4} if name == "mamba2" else {}
    layer = LAYERS[name](d_state=N, **more).build(H, key=jax.random.key(0))
    weights = jax.random.normal(jax.random.key(2), u.shape)

    def whole(layer, u):
        y = layer(u)
        return jnp.sum(weights * y), y

    def parted(layer, u):
        return whole(sharded_along_length(layer, mesh, "length"), u)

    run = lambda f, u: eqx.filter_jit(eqx.filter_value_and_grad(
        lambda both: f(*both), has_aux=True))((layer, u))
    (_, y), grads = run(parted, placed)
    (_, exact), expected = run(whole, u)
    assert y.sharding.spec == P("length"), y.sharding
    close(y, exact)
    close(grads, expected)
    sharded = sharded_along_length(layer, mesh, "length")
    assert sharded.received_bytes(L) == 4 * of_states(layer, name), name
    # of a longer sequence no more
    assert sharded.received_bytes(4 * L) == sharded.received_bytes(L)
    print(name, sharded.received_bytes(L))

batch = jax.random.normal(jax.random.key(3), (4, L, H))
both = jax.make_mesh((2, 4), ("batch", "length"), axis_types=(AxisType.Auto,) * 2)
layer = LAYERS["lru"](d_state=N).build(H, key=jax.random.key(0))
many = jax.vmap(sharded_along_length(layer, both, "length"), spmd_axis_name="batch")
y = jax.jit(many)(jax.device_put(batch, NamedSharding(both, P("batch", "length"))))
assert y.sharding.spec == P("batch", "length"), y.sharding
close(y, jax.vmap(layer)(batch))
"""


def run(*names):
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
    }
    command = [sys.executable, "-c", SCRIPT, *names]
    subprocess.run(command, check=True, env={**os.environ, **settings})


def test_pieces_are_the_whole():
    run("lru")


@pytest.mark.slow
def test_pieces_are_the_whole_of_every_layer():
    run(*LAYERS)


def on_one():
    return jax.make_mesh((1,), ("length",), axis_types=(AxisType.Auto,))


def test_one_piece_is_the_whole(getkey):
    layer = Mamba.init(4, 3, key=getkey())
    u = jax.random.normal(getkey(), (9, 4))
    sharded = sharded_along_length(layer, on_one(), "length")
    assert jnp.allclose(sharded(u), layer(u), atol=1e-6)


def test_what_has_no_pieces_is_refused(getkey):
    layer = LRU.init(4, 3, key=getkey())
    with pytest.raises(ValueError, match=r"`axis` must be an axis of the mesh, 'length', got 'x'"):
        sharded_along_length(layer, on_one(), "x")
    with pytest.raises(ValueError, match=r"`layer` must be .*AbstractSSM"):
        sharded_along_length(Bidirectional(layer, layer), on_one(), "length")
    mamba = sharded_along_length(Mamba.init(4, 3, key=getkey()), on_one(), "length")
    with pytest.raises(ValueError, match=r"`u` must have 4 samples or more on each device, got 2"):
        mamba(jnp.ones((2, 4)))
