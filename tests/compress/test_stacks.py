"""Layers made by vmap and run by scan are cut as a stack, to one number of states."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Data, Rank, Ranks, Tolerance, compress, plan, verify
from compress.model.stacks import restacked, stack_size, stacks_of, unstacked
from zoo import LRU, S5, DiagonalLTI, Mamba

DEPTH, H, N, LENGTH = 3, 4, 12, 40


def lru(key):
    return LRU.init(H, N, key=key, r_min=0.3, r_max=0.95)


def s5(key):
    return S5.init(H, N, key=key)


def mamba(key):
    return Mamba.init(H, N, key=key)


class Deep(eqx.Module):
    """A model as Equinox's documentation recommends it for many equal layers."""

    layers: LRU | S5 | Mamba
    readout: jax.Array

    def __call__(self, u):
        arrays, static = eqx.partition(self.layers, eqx.is_array)

        def block(x, arrays):
            return x + jax.nn.gelu(eqx.combine(arrays, static)(x)), None

        return jnp.mean(jax.lax.scan(block, u, arrays)[0], axis=0) @ self.readout


def deep(make):
    keys = jax.random.split(jax.random.key(0), DEPTH + 1)
    return Deep(eqx.filter_vmap(make)(keys[:DEPTH]), jax.random.normal(keys[DEPTH], (H, 2)))


def member(stack, k):
    return jax.tree.map(lambda x: x[k] if eqx.is_array(x) else x, stack)


def states(stack):
    return member(stack, 0).d_state


def inputs(b=4):
    return jax.random.normal(jax.random.key(5), (b, LENGTH, H))


KINDS = pytest.mark.parametrize("make", [lru, s5, mamba])
LINEAR = pytest.mark.parametrize("make", [lru, s5])


@KINDS
def test_a_stack_is_known_by_its_axes(make):
    model = deep(make)
    assert stack_size(model.layers) == DEPTH
    assert stack_size(make(jax.random.key(0))) is None
    assert list(stacks_of(model).values()) == [DEPTH]
    assert restacked(unstacked(model), model).layers is model.layers
    layer = make(jax.random.key(0))
    assert unstacked(layer) is layer


def test_stacks_of_stacks_are_refused():
    keys = jax.random.split(jax.random.key(0), (2, 3))
    twice = eqx.filter_vmap(eqx.filter_vmap(lru))(keys)
    with pytest.raises(ValueError, match=r"a LRU must be .* along one axis, got .*\(2, 3\)"):
        compress(twice)


@KINDS
def test_all_layers_are_cut_to_one_size_as_each_by_itself(make):
    model, u = deep(make), inputs()
    method = Data(u)
    planned = plan(model, policy=Tolerance(0.2), method=method)
    assert [row.path for row in planned.layers] == [f"layers[{k}]" for k in range(DEPTH)]
    assert len(set(planned.ranks.values())) == 1
    small, none = compress(model, plan=planned)
    assert none is None
    assert type(small.layers) is type(model.layers)
    assert stack_size(small.layers) == DEPTH
    rank = planned.layers[0].rank_after
    assert states(small.layers) == rank < N
    assert [x.dtype for x in jax.tree.leaves(small)] == [x.dtype for x in jax.tree.leaves(model)]
    for k in range(DEPTH):
        row = planned.layers[k]
        assert row.cut is not None
        assert row.cut.after.d_state == rank
        for mine, alone in zip(
            jax.tree.leaves(member(small.layers, k)), jax.tree.leaves(row.cut.after), strict=True
        ):
            np.testing.assert_array_equal(mine, alone)
    assert bool(jnp.all(jnp.isfinite(jax.vmap(small)(u))))


@LINEAR
def test_data_of_a_scan_are_those_of_a_loop(make):
    model, u = deep(make), inputs()
    layers = [member(model.layers, k) for k in range(DEPTH)]

    def in_a_loop(parts, u):
        layers, readout = parts
        for layer in layers:
            u = u + jax.nn.gelu(layer(u))
        return jnp.mean(u, axis=0) @ readout

    from compress import layer_inputs

    scanned = layer_inputs(model, u)
    looped = layer_inputs((layers, model.readout), u, in_a_loop)
    for k in range(DEPTH):
        np.testing.assert_allclose(
            scanned[f"layers[{k}]"], looped[f"[0][{k}]"], rtol=1e-4, atol=1e-5
        )


@LINEAR
def test_the_optimizers_state_of_a_stack_is_that_of_its_layers(make):
    model, u = deep(make), inputs()
    optimizer = optax.adam(1e-3)

    def loss(model):
        return jnp.sum(jnp.sin(jax.vmap(model)(u)))

    params = eqx.filter(model, eqx.is_inexact_array)
    grads = eqx.filter_grad(loss)(model)
    _, state = optimizer.update(grads, optimizer.init(params), params)
    small, after = compress(model, state, policy=Rank(6))
    (stacked,) = [s for s in after if hasattr(s, "mu")]
    for k in range(DEPTH):
        layer = member(model.layers, k)
        single = optimizer.update(member(grads.layers, k), optimizer.init(layer), layer)[1]
        _, alone = compress(layer, single, policy=Rank(states(small.layers)))
        for name in ("mu", "nu"):
            for mine, other in zip(
                jax.tree.leaves(member(getattr(stacked, name).layers, k)),
                jax.tree.leaves(getattr(alone[0], name)),
                strict=True,
            ):
                np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-8)
    params = eqx.filter(small, eqx.is_inexact_array)
    updates, _ = optimizer.update(eqx.filter_grad(loss)(small), after, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def uneven(keys):
    """Two layers: one of real modes, whose cut may end a state short, one of pairs."""
    n, m = 8, 2
    log_lam = jnp.log1p(-(2.0 ** -jnp.arange(1.0, n + 1))) + 0j
    B, C = (
        jax.random.normal(k, shape) + 0j for k, shape in zip(keys, ((n, m), (m, n)), strict=True)
    )
    real = LRU.init(m, n, key=keys[0]).from_lti(DiagonalLTI(log_lam, B, C, jnp.zeros(m)))
    pairs = LRU.init(m, n, key=keys[1], r_min=0.3, r_max=0.9, max_phase=1.0)
    return jax.tree.map(lambda *x: jnp.stack(x), real, pairs)


def test_layers_that_end_short_are_filled_up_with_states_that_do_nothing():
    stack = uneven(jax.random.split(jax.random.key(3)))
    filled = 0
    for rank in range(2, 8):
        planned = plan(stack, policy=Rank(rank))
        small, _ = compress(stack, plan=planned)
        assert states(small) == planned.layers[0].rank_after == planned.layers[1].rank_after
        alone = [plan(member(stack, k), policy=Rank(rank)).layers[0] for k in range(2)]
        for k, row in enumerate(alone):
            filled += row.rank_after < states(small)
            cut = row.cut.after
            u = jax.random.normal(jax.random.key(1), (30, 2))
            np.testing.assert_allclose(member(small, k)(u), cut(u), atol=1e-4)
        assert verify(stack, small).layers[1].holds
    assert filled


def test_ranks_may_name_the_layers_of_a_stack():
    model = deep(lru)
    small, _ = compress(model, policy=Ranks({f"layers[{k}]": 5 for k in range(DEPTH)}))
    assert states(small.layers) == 5
    same, _ = compress(model, policy=Ranks({"layers[0]": 5}))  # one common size: the others' 12
    assert same.layers is model.layers


def test_training_goes_on_with_a_smaller_stack():
    model, u = deep(lru), inputs()
    optimizer = optax.adamw(1e-2)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        loss, grads = eqx.filter_value_and_grad(
            lambda m: jnp.mean((jax.vmap(m)(u) - jnp.array([1.0, -1.0])) ** 2)
        )(model)
        updates, state = optimizer.update(grads, state, model)
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for k in range(30):
        model, state, loss = step(model, state)
        losses.append(float(loss))
        if k == 14:
            model, state = compress(model, state, tolerance=0.1, batch=u)
    assert stack_size(model.layers) == DEPTH
    assert losses[-1] < losses[0] / 2
