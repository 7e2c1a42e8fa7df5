"""The recurrence of linear attention against its definition, sample by sample in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import attention_scan
from zoo.recurrence.attention import attention_step
from zoo.recurrence.attention_forms import Drive, delta_chunks, gated_chunks, sample_by_sample
from zoo.recurrence.compiled import built, native

KINDS = ("alike", "gated", "delta")
"""One decay for all keys of a head, one for each key, the delta rule."""


def by_definition(q, k, v, log_decay, beta, S):
    """Outputs [L h V] and the last state [h K V], in double precision."""
    q, k, v, log_decay, S = (np.asarray(a, np.float64) for a in (q, k, v, log_decay, S))
    o = np.zeros(v.shape)
    for t in range(len(q)):
        S = np.exp(log_decay[t])[..., None] * S
        written = v[t]
        if beta is not None:
            written = np.float64(beta[t])[:, None] * (v[t] - np.einsum("hkv,hk->hv", S, k[t]))
        S = S + np.einsum("hk,hv->hkv", k[t], written)
        o[t] = np.einsum("hkv,hk->hv", S, q[t])
    return o, S


def problem(kind, L, h=2, K=5, V=7, dtype=np.float32, batch=(), strongest=4.0):
    """q, k, v, log_decay, beta, S0; decays from none at all to exp(-`strongest`)."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=(*batch, *shape)).astype(dtype)  # noqa: E731
    k = draw(L, h, K)
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    each = K if kind == "gated" else 1
    log_decay = -strongest * rng.uniform(size=(*batch, L, h, each)) ** 4
    beta = rng.uniform(size=(*batch, L, h)).astype(dtype) if kind == "delta" else None
    given = draw(L, h, K), k, draw(L, h, V), log_decay.astype(dtype), beta, draw(h, K, V)
    return tuple(None if a is None else jnp.asarray(a) for a in given)


def gradients(function, arguments):
    """Those of a weighted sum of all outputs and last states, by every argument that is given."""
    places = [i for i, a in enumerate(arguments) if a is not None]

    def loss(*given):
        full = list(arguments)
        for i, a in zip(places, given, strict=True):
            full[i] = a
        o, S = function(*full)
        rng = np.random.default_rng(1)
        weights = [jnp.asarray(rng.normal(size=a.shape), a.dtype) for a in (o, S)]
        return jnp.sum(weights[0] * o) + jnp.sum(weights[1] * S)

    given = [arguments[i] for i in places]
    return jax.jit(jax.grad(loss, argnums=tuple(range(len(given)))))(*given)


def form(name, chunk):
    """A form of the recurrence, as `attention_scan` is called, for a batch."""
    forms = {"samples": sample_by_sample, "alike": gated_chunks, "gated": gated_chunks}
    compute = {**forms, "delta": delta_chunks}[name]
    return lambda q, k, v, g, beta, S: compute(Drive(q, k, v, g, beta), S, chunk)


def in_precision(precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")


def close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_it_is_the_definition(kind, precision, kernel, request):
    in_precision(precision, request)
    for L in (1, 70):
        given = problem(kind, L, dtype=precision)
        o, S = jax.jit(attention_scan)(*given)
        expected = [jnp.asarray(a, precision) for a in by_definition(*given)]
        close((o, S), expected, 1e-5 if precision == "float32" else 1e-12)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        *((kind, "float32") for kind in KINDS),
        ("delta", "float64"),
        ("gated", "float64"),
        pytest.param("alike", "float64", marks=pytest.mark.slow),
    ],
)
def test_all_forms_agree_in_values_and_gradients(kind, precision, kernel, request):
    in_precision(precision, request)
    tolerance = 1e-5 if precision == "float32" else 1e-12
    given = problem(kind, 45, dtype=precision, batch=(2,))
    axes = [None if a is None else 0 for a in given]
    forms = [jax.vmap(attention_scan, in_axes=axes), form(kind, 16), form("samples", 8)]
    values = [jax.jit(f)(*given) for f in forms]
    slopes = [gradients(f, given) for f in forms]
    for ours, found in zip(values[:2], slopes[:2], strict=True):
        close(ours, values[2], tolerance)
        close(found, slopes[2], tolerance)


@pytest.mark.skipif(
    not (native("float32") and built("attention_outputs")), reason="no kernel was compiled"
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("K", "V", "L", "batch", "precision"),
    [
        (1, 1, 1, 1, "float32"),
        (17, 40, 16, 3, "float32"),
        (5, 150, 33, 2, "float32"),
        (64, 64, 50, 2, "float32"),
        (17, 70, 33, 2, "float64"),
    ],
)
def test_the_kernel_at_sizes_of_every_kind(kind, K, V, L, batch, precision, request):
    """Columns of one vector to several blocks of them, of which the last is not full."""
    in_precision(precision, request)
    tolerance = 1e-5 if precision == "float32" else 1e-12
    given = problem(kind, L, K=K, V=V, batch=(batch,), dtype=precision)
    run = jax.vmap(attention_scan, in_axes=[None if a is None else 0 for a in given])
    definition = form("samples", L)
    assert "attention_outputs" in jax.jit(run).lower(*given).as_text()
    close(jax.jit(run)(*given), jax.jit(definition)(*given), tolerance)
    close(gradients(run, given), gradients(definition, given), tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_no_decay_is_too_strong(kind, kernel):
    """Factors of a decay taken apart, exp(c_t) and exp(-c_s), would overflow."""
    given = problem(kind, 70, strongest=300.0)
    close(
        jax.jit(attention_scan)(*given),
        [jnp.asarray(a, jnp.float32) for a in by_definition(*given)],
        1e-5,
    )
    assert all(np.isfinite(a).all() for a in gradients(attention_scan, given))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_pieces_are_the_scan(kind):
    q, k, v, g, beta, S = given = problem(kind, 20)
    o, last = attention_scan(*given)
    middle, outputs = S, []
    for part in (slice(0, 7), slice(7, 20)):
        b = None if beta is None else beta[part]
        out, middle = attention_scan(q[part], k[part], v[part], g[part], b, middle)
        outputs.append(out)
    close((jnp.concatenate(outputs), middle), (o, last), 1e-5)
    b0 = None if beta is None else beta[0]
    first, after = attention_step(q[0], k[0], v[0], g[0], b0, S)
    whole = attention_scan(*(None if a is None else a[:1] for a in given[:5]), S)
    close((first[None], after), whole, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_share_keys(kind):
    q, k, v, g, beta, S = problem(kind, 9, h=4)
    shared = attention_scan(q[:, :2], k[:, :2], v, g, beta, S)
    each = attention_scan(*(jnp.repeat(a[:, :2], 2, axis=1) for a in (q, k)), v, g, beta, S)
    close(shared, each, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind, x64):
    given = problem(kind, 12, K=3, V=2, dtype=np.float64)
    names = [i for i, a in enumerate(given) if a is not None]
    rng = np.random.default_rng(2)
    directions = [rng.normal(size=given[i].shape) for i in names]

    def value(step):
        moved = list(given)
        for i, direction in zip(names, directions, strict=True):
            moved[i] = given[i] + step * direction
        o, S = attention_scan(*moved)
        weights = np.random.default_rng(1)
        return float(sum(jnp.sum(weights.normal(size=a.shape) * a) for a in (o, S)))

    slope = sum(
        jnp.sum(a * b) for a, b in zip(gradients(attention_scan, given), directions, strict=True)
    )
    assert float(slope) == pytest.approx((value(1e-5) - value(-1e-5)) / 2e-5, rel=1e-7)


def test_memory_does_not_hold_the_states(kernel):
    """6 MiB of inputs, 128 MiB of states: forward and backward stay far below the latter."""
    given = problem("delta", 1024, h=2, K=64, V=64, batch=(4,))
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in given]
    run = jax.vmap(attention_scan)

    def loss(*given):
        o, S = run(*given)
        return jnp.sum(o**2) + jnp.sum(S)

    compiled = jax.jit(jax.grad(loss, argnums=tuple(range(6)))).lower(*shapes).compile()
    states = 4 * given[2].size * 64
    assert compiled.memory_analysis().temp_size_in_bytes < states / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v, g, b: (q[:, :1], k[:, :1], v[:, :1], g[:, :1], b), "beta has shape"),
        (
            lambda q, k, v, g, b: (q, k, v, jnp.repeat(g, 5, axis=2), b),
            "`log_decay` must be one for all keys of a head with the delta rule, got 5",
        ),
        (
            lambda q, k, v, g, b: (q[:, :2], k[:, :2], v, g, b),
            "`k` must have a number of heads that divides 3, got 2",
        ),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    q, k, v, g, beta, _ = problem("delta", 4, h=3)
    with pytest.raises(ValueError, match=message):
        attention_scan(*change(q, k, v, g, beta))
