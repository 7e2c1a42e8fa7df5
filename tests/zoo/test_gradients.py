"""The gradient of every linear layer against finite differences, in double precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import DLinOSSConfig, LinOSSConfig, LRUConfig, S4DConfig, S5Config

H, N = 4, 4
CONFIGS = {
    "lru": LRUConfig(N),
    "s5": S5Config(N),
    "s5 full": S5Config(N, conjugate_pairs=False),
    "s5 clipped": S5Config(N, clip_eigenvalues=True, discretization="bilinear"),
    "s5 both ways": S5Config(N, both_ways=True),
    "s5 both ways, once": S5Config(N, both_ways=True, current_twice=False),
    "s4d": S4DConfig(N),
    "linoss": LinOSSConfig(N),
    "d_linoss": DLinOSSConfig(N),
}
STEP = 1e-6


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_gradients_are_finite_differences(config, x64, getkey):
    layer = config.build(H, key=getkey())
    params, static = eqx.partition(layer, eqx.is_inexact_array)
    u = jax.random.normal(getkey(), (12, H))
    weights = jax.random.normal(getkey(), u.shape)

    @jax.jit
    def loss(params, u):
        return jnp.sum(weights * jnp.sin(eqx.combine(params, static)(u)))

    leaves, structure = jax.tree.flatten((params, u))
    keys = jax.random.split(getkey(), len(leaves))
    change = [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]
    along = structure.unflatten(change)
    if isinstance(config, LinOSSConfig):  # without damping it stays, by a rectifier at its kink
        along = eqx.tree_at(lambda both: both[0].G, along, jnp.zeros(N))
        change = jax.tree.leaves(along)
    gradient = jax.grad(loss, (0, 1))(params, u)
    slope = sum(jnp.vdot(g, x) for g, x in zip(jax.tree.leaves(gradient), change, strict=True))
    ahead, behind = (
        loss(*jax.tree.map(lambda x, d, s=s: x + s * STEP * d, (params, u), along)) for s in (1, -1)
    )
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * STEP), rtol=1e-5, atol=1e-6)
