"""Every registered layer under the transformations of JAX that people put it under."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from zoo import LAYERS, linear_recurrence, lti_apply
from zoo.derivative import both_ways
from zoo.recurrence.choice import recurrence_form
from zoo.recurrence.forms import FORMS
from zoo.recurrence.plain import plainly

H, N = 4, 3
MORE = {"mamba2": {"headdim": 4}}
"""Settings of narrow layers."""
ALL = pytest.mark.parametrize("name", LAYERS)
QUICK = ("lru", "mamba")
"""One of each family that the quick tests take; the slow ones take all layers."""
EACH = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS]
)


def built(name, key):
    """The layer as a function of its parameters and a batch, and its parameters."""
    layer = LAYERS[name](N, **MORE.get(name, {})).build(H, key=key)
    parameters, static = eqx.partition(layer, eqx.is_inexact_array)
    return (lambda p, u: jax.vmap(eqx.combine(p, static))(u)), parameters


def some(key, like):
    """Numbers for each array of `like`."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    made = [jax.random.normal(k, x.shape, x.dtype) / 4 for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, made)


def inner(one, other):
    """The sum of all products."""
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), one, other)))


def close(one, other, tolerance=1e-4):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance * max(1e-3, float(jnp.abs(b).max()))
        ),
        one,
        other,
    )


@ALL
def test_forward_mode_is_the_transpose_of_the_backward_pass(name, getkey):
    f, parameters = built(name, getkey())
    u = jax.random.normal(getkey(), (2, 6, H))
    at, along = (parameters, u), some(getkey(), (parameters, u))
    y, dy = jax.jit(lambda at, along: jax.jvp(f, at, along))(at, along)
    weights = some(getkey(), y)
    slopes = jax.jit(jax.grad(lambda at: inner(weights, f(*at))))(at)
    close(inner(weights, dy), inner(slopes, along))


@EACH
def test_jacobians_of_both_modes_are_equal(name, getkey):
    f, parameters = built(name, getkey())
    u = jax.random.normal(getkey(), (1, 3, H))
    forward = jax.jit(jax.jacfwd(lambda u: f(parameters, u)[:, -1, :2]))(u)
    close(forward, jax.jit(jax.jacrev(lambda u: f(parameters, u)[:, -1, :2]))(u))


@EACH
def test_hessians_by_forward_over_reverse_are_symmetric(name, getkey):
    f, parameters = built(name, getkey())
    u = jax.random.normal(getkey(), (2, 5, H))
    a, b = some(getkey(), parameters), some(getkey(), parameters)
    slope = jax.grad(lambda p: jnp.sum(f(p, u) ** 2))
    bend = jax.jit(lambda p, along: jax.jvp(slope, (p,), (along,))[1])
    close(inner(a, bend(parameters, b)), inner(b, bend(parameters, a)), 1e-3)


@EACH
def test_layers_stacked_by_vmap_and_run_by_scan_are_each_one(name, getkey):
    keys = jax.random.split(getkey(), 3)
    stack = eqx.filter_vmap(lambda key: LAYERS[name](N).build(H, key=key))(keys)
    arrays, static = eqx.partition(stack, eqx.is_array)
    u = jax.random.normal(getkey(), (6, H))

    def scanned(arrays, u):
        def one(y, layer):
            return jax.checkpoint(lambda layer, y: eqx.combine(layer, static)(y))(layer, y), None

        return jax.lax.scan(one, u, arrays)[0]

    def looped(arrays, u):
        for k in range(3):
            u = eqx.combine(jax.tree.map(lambda x, k=k: x[k], arrays), static)(u)
        return u

    def both(run):
        def total(trained):
            return jnp.sum(run(eqx.combine(trained, fixed), u) ** 2)

        trained, fixed = eqx.partition(arrays, eqx.is_inexact_array)
        return jax.jit(jax.value_and_grad(total))(trained)

    close(both(scanned), both(looped), 1e-3)


@EACH
def test_members_of_a_vmap_over_parameters_are_each_one(name, getkey):
    u = jax.random.normal(getkey(), (2, 6, H))
    pairs = [built(name, key) for key in jax.random.split(getkey(), 2)]
    f, each = pairs[0][0], [parameters for _, parameters in pairs]
    together = jax.tree.map(lambda *x: jnp.stack(x), *each)

    def total(p):
        return jnp.sum(f(p, u) ** 2)

    slopes = jax.jit(jax.vmap(jax.value_and_grad(total)))(together)
    alone = [jax.jit(jax.value_and_grad(total))(p) for p in each]
    close(slopes, jax.tree.map(lambda *x: jnp.stack(x), *alone), 1e-3)


@EACH
def test_shards_of_a_batch_and_given_away_arguments_change_nothing(name, getkey):
    f, parameters = built(name, getkey())
    u = jax.random.normal(getkey(), (2, 6, H))
    y = jax.jit(f)(parameters, u)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    whole, share = PartitionSpec(), PartitionSpec("batch")
    sharded = jax.shard_map(f, mesh=mesh, in_specs=(whole, share), out_specs=share, check_vma=False)
    close(jax.jit(sharded)(parameters, u), y)
    close(jax.jit(f, donate_argnums=1)(parameters, jnp.array(u)), y)


@EACH
def test_an_exported_program_is_the_layer_for_any_batch_and_length(name, getkey):
    """Written, read again, and run: `jax.export` with symbols for both sizes."""
    f, parameters = built(name, getkey())
    leaves, tree = jax.tree.flatten(parameters)  # files hold no classes of ours
    b, L = jax.export.symbolic_shape("b, L")
    with plainly():
        program = jax.jit(lambda leaves, u: f(jax.tree.unflatten(tree, leaves), u))
        exported = jax.export.export(program)(
            [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves],
            jax.ShapeDtypeStruct((b, L, H), jnp.float32),
        )
    again = jax.export.deserialize(exported.serialize())
    u = jax.random.normal(getkey(), (2, 5, H))
    close(again.call(leaves, u), f(parameters, u))


@EACH
@pytest.mark.usefixtures("x64")
def test_double_precision_agrees_in_both_modes(name, getkey):
    f, parameters = built(name, getkey())
    wide = jax.tree.map(lambda x: x.astype(jnp.result_type(x, jnp.float64)), parameters)
    u = jax.random.normal(getkey(), (2, 5, H))
    along = some(getkey(), wide)
    y, dy = jax.jit(lambda p, dp: jax.jvp(lambda p: f(p, u), (p,), (dp,)))(wide, along)
    assert y.dtype == jnp.float64
    weights = some(getkey(), y)
    slopes = jax.jit(jax.grad(lambda p: inner(weights, f(p, u))))(wide)
    close(inner(weights, dy), inner(slopes, along), 1e-10)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "tiles"])
@pytest.mark.usefixtures("x64")
def test_every_form_has_both_modes(form, getkey):
    log_lam = -0.1 + 1j * jnp.arange(3.0)
    B, C = (jax.random.normal(getkey(), s) + 0.3j for s in [(3, 2), (2, 3)])
    at = log_lam, B, C, jax.random.normal(getkey(), (10, 2)), jnp.ones(3, complex)
    along = some(getkey(), at)

    def f(*arrays):
        y, x = lti_apply(*arrays)
        return y, jnp.real(x), jnp.imag(x)

    with recurrence_form(form, 4):
        y, dy = jax.jit(lambda at, along: jax.jvp(f, at, along))(at, along)
        weights = some(getkey(), y)
        slopes = jax.jit(jax.grad(lambda at: inner(weights, f(*at))))(at)
    np.testing.assert_allclose(
        inner(weights, dy), jnp.real(inner(slopes, along)), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.usefixtures("x64")
def test_the_time_varying_recurrence_has_both_modes(reverse, getkey):
    at = [jax.random.normal(getkey(), s) for s in [(6, 3), (6, 3), (3,)]]
    along = [jax.random.normal(getkey(), x.shape) for x in at]

    def f(a, b, x0):
        return linear_recurrence(a, b, x0, reverse=reverse)

    y, dy = jax.jvp(f, at, along)
    weights = some(getkey(), y)
    slopes = jax.grad(lambda at: inner(weights, f(*at)))(at)
    np.testing.assert_allclose(inner(weights, dy), inner(slopes, along), rtol=1e-12)


KINDS = {
    "forward": lambda f: jax.jacfwd(f),
    "reverse": lambda f: jax.jacrev(f),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "forward over reverse": lambda f: jax.jacfwd(jax.jacrev(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
    "linearize": lambda f: lambda x: jax.linearize(f, x)[1](jnp.cos(x)),
    "batch of slopes": lambda f: lambda x: jax.vmap(jax.grad(lambda x: f(x).sum()))(x[None]),
    "slopes of a batch": lambda f: jax.grad(lambda x: jax.vmap(f)(x[None] + jnp.eye(3)).sum()),
    "checkpoint": lambda f: jax.grad(lambda x: jax.checkpoint(f)(x).sum()),
    "scan": lambda f: jax.grad(
        lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, length=2)[0].sum()
    ),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("compile", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_derivative_given_both_ways_is_that_of_the_function(kind, compile):
    def plain(x, w):
        return jnp.sin(x) * w + w**2

    def tangent(kept, tangents):
        return jax.jvp(plain, kept, tangents)[1]

    def backward(kept, cotangent):
        return jax.vjp(plain, *kept)[1](cotangent)

    given = both_ways(lambda x, w: (plain(x, w), (x, w)), tangent, backward)
    x = jnp.array([0.3, -0.7, 1.1])
    ours, theirs = (compile(kind(lambda x, f=f: f(x, 2 * x)))(x) for f in (given, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
