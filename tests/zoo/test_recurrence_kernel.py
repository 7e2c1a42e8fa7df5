"""The GPU kernel, interpreted. That it lowers for a GPU is in `test_recurrence`."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.recurrence.linear import linear_recurrence
from zoo.recurrence.pallas import BLOCK, Order, recurrence_on_gpu


def expected(a, b, x, order: Order, reverse: bool):
    """The definition, in complex or real numbers."""
    samples = range(b.shape[1])
    kept = np.zeros_like(b)
    for k in reversed(samples) if reverse else samples:
        if order == "after":
            x = kept[:, k] = a[:, k] * x + b[:, k]
        elif order == "before":
            kept[:, k], x = x, a[:, k] * x + b[:, k]
        else:
            kept[:, k] = x + b[:, k]
            x = a[:, k] * kept[:, k]
    return kept, x


def parts(x, axis):
    return np.stack([x.real, x.imag] if np.iscomplexobj(x) else [x], axis=axis)


@pytest.mark.parametrize("order", ["after", "before", "adjoint"])
@pytest.mark.parametrize(
    ("kind", "shared", "L", "reverse"),
    [(complex, True, 9, True), (complex, False, 4, False), (float, False, 5, True)],
)
def test_the_kernel_equals_the_definition(x64, monkeypatch, kind, shared, L, reverse, order: Order):
    monkeypatch.setattr("zoo.recurrence.pallas.AHEAD", 4)
    rng = np.random.default_rng(0)
    batch, n = 2, BLOCK + 13

    def draw(*shape):
        x = rng.uniform(-0.6, 0.6, shape) + 1j * rng.uniform(-0.6, 0.6, shape)
        return x if kind is complex else x.real

    a = draw(1, 1, n) if shared else draw(batch, L, n)
    b, x = draw(batch, L, n), draw(batch, n)
    arrays = [jnp.asarray(each) for each in (parts(a, -2), parts(b, -2), parts(x, -2))]
    ours = recurrence_on_gpu(*arrays, order, reverse, interpret=True)
    theirs = expected(np.broadcast_to(a, b.shape), b, x, order, reverse)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, parts(other, -2), rtol=0, atol=1e-12)


def test_a_jax_without_triton_has_the_loop(monkeypatch, lowers_for_cuda):
    monkeypatch.setattr("zoo.recurrence.pallas._triton", lambda: None)
    a = jax.ShapeDtypeStruct((4, 20, 8), jnp.float32)
    gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(jax.vmap(linear_recurrence)(a, b) ** 2)))
    assert "xla.gpu.triton" not in lowers_for_cuda(gradient, a, a)


SEVERAL = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from zoo.recurrence.pallas import recurrence_on_gpu

mesh = jax.make_mesh((2,), ("all",), axis_types=(AxisType.Auto,))
rng = np.random.default_rng(0)
b, x = rng.normal(size=(4, 9, 2, 64)), rng.normal(size=(4, 2, 64))

def run(a, spec):
    place = lambda x, spec: jax.device_put(jnp.asarray(x), NamedSharding(mesh, spec))
    f = jax.jit(lambda *arrays: recurrence_on_gpu(*arrays, "after", False, interpret=True))
    arrays = place(a, PartitionSpec()), place(b, spec), place(x, PartitionSpec())
    return f.lower(*arrays).compile().as_text(), f(*arrays)

for a in (rng.uniform(size=(1, 1, 2, 64)) / 2, rng.uniform(size=(4, 9, 2, 64)) / 2):
    _, whole = run(a, PartitionSpec())
    for spec in (PartitionSpec("all"), PartitionSpec(None, None, None, "all")):
        text, (states, last) = run(a, spec)
        assert "all-gather" not in text
        assert states.sharding.spec == spec, states.sharding
        for mine, other in zip((states, last), whole):
            np.testing.assert_allclose(mine, other, rtol=1e-6)
    models = jax.vmap(lambda a: recurrence_on_gpu(a, b, x, "after", False, interpret=True))
    for mine, other in zip(models(jnp.stack([a, a])), whole):
        np.testing.assert_allclose(mine[1], other, rtol=1e-6)
"""


def test_several_devices_share_the_sequences_or_the_states():
    """Nothing is gathered: each goes through what it has."""
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    subprocess.run([sys.executable, "-c", SEVERAL], check=True, env={**os.environ, **settings})
