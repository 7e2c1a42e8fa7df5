"""Half precision in training: what computes in it, and what does not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import BATCH_AXIS, LAYERS, classifier, in_precision, language_model
from zoo.layers.affine import Linear
from zoo.layers.base import AbstractSSM

H = 8
X = jax.random.normal(jax.random.key(1), (3, 11, H))


def config_of(name):
    return LAYERS[name](d_state=4, **({"headdim": 4} if name == "mamba2" else {}))


def network(name, **settings):
    made = {"norm": "layer", **settings}
    return classifier(
        lambda key: config_of(name).build(H, key=key),
        input_kind="real",
        input_size=H,
        classes=3,
        d_model=H,
        blocks=1,
        key=jax.random.key(0),
        **made,
    )


def floats(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))


def outputs(model, state):
    state = jax.tree.unflatten(*jax.tree.flatten(state)[::-1])
    call = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name=BATCH_AXIS)
    return call(X, state)[0]


QUICK = ("lru", "s5", "mamba", "gated_deltanet")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LAYERS],
)
def test_every_layer_learns_in_half_precision(name):
    model, state = network(name)

    def loss(model, precision):
        return jnp.sum(jax.nn.log_softmax(outputs(in_precision(model, precision), state))[:, 0])

    def of(precision):
        return eqx.filter_jit(eqx.filter_value_and_grad(lambda m: loss(m, precision)))(model)

    (exact, exact_grads), (half, grads) = of("float32"), of("bf16")
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, exact, rtol=0.02)
    assert all(g.dtype == jnp.float32 for g in floats(grads))
    ours, theirs = (jnp.concatenate([g.ravel() for g in floats(t)]) for t in (grads, exact_grads))
    assert float(jnp.vdot(ours, theirs)) > 0.98 * float(
        jnp.linalg.norm(ours) * jnp.linalg.norm(theirs)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_the_stream_is_half_and_dynamics_are_not(name):
    model, state = network(name)
    half = in_precision(model, "bf16")
    block, old = half.blocks[0], model.blocks[0]
    y, _ = jax.eval_shape(lambda x: block(x, state), X[0])
    assert y.dtype == jnp.bfloat16
    layer: AbstractSSM = block.ssm
    for field in layer.dynamics:
        assert all(x.dtype == jnp.float32 for x in floats(getattr(layer, field)))
    kinds = {x.dtype for x in floats(half)}
    assert kinds == ({jnp.dtype("float32"), jnp.dtype("bfloat16")})
    carry = jax.eval_shape(layer.init_state)
    single = [x for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.inexact)]
    assert {str(x.dtype) for x in single} <= {"float32", "complex64"}
    assert eqx.tree_equal((half.encoder, half.head), (model.encoder, model.head))
    assert eqx.tree_equal(block.norm, old.norm)


@pytest.mark.parametrize("name", ["lru", "mamba", "gated_deltanet"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_it_streams_as_it_is_called(name, norm_first):
    model, state = network(name, norm_first=norm_first)
    block = in_precision(model, "bf16").blocks[0]
    exact, _ = model.blocks[0](X[0], state)
    whole, _ = block(X[0], state)
    carry, first = block.run(block.ssm.init_state(), X[0, :7])
    _, y = block.step(carry, X[0, 7])
    assert whole.dtype == first.dtype == y.dtype == jnp.bfloat16
    together = jnp.concatenate([first, y[None]]).astype(jnp.float32)
    scale = float(jnp.abs(exact).max())
    np.testing.assert_allclose(together, exact[:8], atol=0.05 * scale)
    np.testing.assert_allclose(whole.astype(jnp.float32), exact, atol=0.05 * scale)


@pytest.mark.parametrize("norm", ["batch", "batch-ema"])
def test_sums_over_a_batch_are_in_single_precision(norm):
    model, state = network("lru", norm=norm)
    half = in_precision(model, "bf16")
    call = jax.vmap(half, in_axes=(0, None), out_axes=(0, None), axis_name=BATCH_AXIS)
    y, after = jax.eval_shape(call, X, state)
    assert y.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in floats(after) if x.dtype != jnp.int32)


def test_products_are_those_of_half_precision():
    weight = jax.random.normal(jax.random.key(0), (3, H))
    linear = Linear(weight.astype(jnp.bfloat16), jnp.ones(3))
    y = linear(X[0])
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), X[0] @ weight.T + 1, atol=0.1)


def test_attention_and_language_models_too():
    model, state = language_model(
        lambda key: config_of("mamba").build(H, key=key),
        vocabulary=7,
        d_model=H,
        blocks=2,
        attention_every=1,
        attention_window=4,
        attention_heads=2,
        key=jax.random.key(0),
    )
    tokens = jnp.arange(9) % 7
    exact, _ = model(tokens, state)
    half = in_precision(model, "bf16")
    y, _ = half(tokens, state)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, exact, atol=0.03 * float(jnp.abs(exact).max()))
    assert half.blocks[1].attention.query.weight.dtype == jnp.bfloat16


def test_a_precision_that_there_is_not_is_refused():
    model, _ = network("lru")
    assert in_precision(model, "float32") is model
    with pytest.raises(ValueError, match=r"`precision` must be .*float16"):
        in_precision(model, "float16")
