"""Models of few states in programs for more: the same function, and the padding stays zero."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Ranks, compress
from compress.model.layers import layers_of
from training.model.optimizer import make_optimizer
from training.model.padding import Padding
from training.settings.config import OptimizerConfig
from zoo import LRU, S5, LinOSS, Mamba, Mamba2

H, N, R, L = 6, 9, 4, 20

LAYERS = {
    "lru": lambda key: LRU.init(H, N, key=key),
    "s5": lambda key: S5.init(H, N, key=key),
    "s5 bilinear": lambda key: S5.init(H, N, key=key, discretization="bilinear"),
    "d_linoss": lambda key: LinOSS.init_damped(H, N, key=key),
    "mamba": lambda key: Mamba.init(H, N, key=key),
    "mamba tied": lambda key: Mamba.init(H, N, key=key, tied=True),
    "mamba2": lambda key: Mamba2.init(H, N, key=key, headdim=4, n_groups=1),
}


class Pair(eqx.Module):
    """Two layers, of which only one is cut."""

    first: eqx.Module
    second: eqx.Module
    scale: jax.Array

    def __call__(self, u):
        return self.scale * self.second(jnp.tanh(self.first(u)))


def loss(model, u):
    return jnp.mean((jax.vmap(model)(u) - jnp.roll(u, 3, axis=1)) ** 2)


QUICK = ("s5", "mamba2")


@pytest.fixture(
    params=[n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS]
)
def trained(request):
    """A pair after some steps, with its optimizer, cut; and data."""
    keys = jax.random.split(jax.random.key(0), 3)
    pair = Pair(*(LAYERS[request.param](k) for k in keys[:2]), jnp.ones(()))
    u = jax.random.normal(keys[2], (3, L, H))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-2), 100)
    state = optimizer.init(eqx.filter(pair, eqx.is_inexact_array))
    pair, state = train(pair, state, optimizer, u, 3)
    ranks = {".first".removeprefix("."): R}
    batch = {"batch": np.asarray(u)} if request.param.startswith("mamba") else {}
    small, small_state = compress(pair, state, policy=Ranks(ranks), **batch)
    return pair, small, small_state, optimizer, u


@eqx.filter_jit
def step(model, state, optimizer, u):
    grads = eqx.filter_grad(loss)(model, u)
    updates, state = optimizer.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
    return eqx.apply_updates(model, updates), state


def train(model, state, optimizer, u, steps):
    for _ in range(steps):
        model, state = step(model, state, optimizer, u)
    return model, state


def same(a, b, **how):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        if eqx.is_array_like(x):
            np.testing.assert_allclose(x, y, err_msg=jax.tree_util.keystr(path), **how)


def test_padded_states_change_nothing_and_are_never_moved(trained):
    large, small, state, optimizer, u = trained
    params, static = eqx.partition(small, eqx.is_array)
    padding = Padding(eqx.filter(large, eqx.is_array), params)
    wide = eqx.combine(padding.widen(params), static)
    wide_state = padding.widen(state)
    assert [layer.d_state for _, layer in layers_of(wide)] == [N, N]
    assert jax.tree.map(jnp.shape, eqx.filter(wide, eqx.is_array)) == jax.tree.map(
        jnp.shape, eqx.filter(large, eqx.is_array)
    )
    np.testing.assert_allclose(jax.vmap(wide)(u), jax.vmap(small)(u), rtol=1e-5, atol=1e-6)

    small, state = train(small, state, optimizer, u, 5)
    wide, wide_state = train(wide, wide_state, optimizer, u, 5)
    back = padding.narrow((eqx.filter(wide, eqx.is_array), wide_state))
    same(back, (eqx.filter(small, eqx.is_array), state), rtol=2e-3, atol=2e-5)
    # what the way back has left out is zero
    same(padding.widen(back), (eqx.filter(wide, eqx.is_array), wide_state), rtol=0, atol=0)


def test_there_and_back_is_the_same(trained):
    large, small, state, _, _ = trained
    tree = eqx.filter(small, eqx.is_array), state
    padding = Padding(eqx.filter(large, eqx.is_array), tree[0])
    same(padding.narrow(padding.widen(tree)), tree, rtol=0, atol=0)


def test_parts_that_are_masked_out_stay_so():
    """Of an optimizer that goes for some of the parameters alone."""
    layer = LRU.init(H, N, key=jax.random.key(0))
    mask = eqx.tree_at(lambda m: m.D, jax.tree.map(lambda x: False, layer), True)
    optimizer = optax.masked(optax.adam(1e-3), mask)
    small, state = compress(layer, optimizer.init(layer), policy=Ranks(R))
    padding = Padding(layer, small)
    wide = padding.widen(state)
    assert jax.tree.structure(wide) == jax.tree.structure(optimizer.init(layer))
    same(padding.narrow(wide), state, rtol=0, atol=0)


def test_copies_share_nothing_with_what_they_are_copies_of():
    """The programs overwrite what they are given."""
    layer = LRU.init(H, N, key=jax.random.key(0))
    small, _ = compress(layer, policy=Ranks(R))
    wide = Padding(layer, small).widen(small)
    before = np.array(small.D)
    jax.jit(lambda x: x + 1, donate_argnums=0)(wide.D)
    np.testing.assert_array_equal(small.D, before)
