import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from zoo.recurrence.choice import (
    ALIGNED,
    ONE_CORE,
    TWO_CORES,
    Choice,
    Size,
    choose_form,
    on_cores,
    recurrence_form,
    stored_states,
)
from zoo.recurrence.linear import linear_recurrence, lti_apply, lti_step

FORMS = [
    Choice("scan", 8),
    Choice("fused", 8),
    Choice("matmul", 4),
    Choice("matmul", 1),
    Choice("fft", 4),
    Choice("associative", 8),
]
EVERY_FORM = pytest.mark.parametrize("choice", FORMS, ids=lambda c: f"{c.form} {c.chunk}")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def system(rng, dtype="float64", m=2, n=5, p=3):
    real = lambda *shape: rng.normal(size=shape)  # noqa: E731
    log_lam = -rng.uniform(0.001, 0.5, n) + 1j * rng.uniform(-3, 3, n)
    arrays = log_lam, real(n, m) + 1j * real(n, m), real(p, n) + 1j * real(p, n)
    complex_dtype = np.result_type(dtype, np.complex64)
    return [jnp.asarray(x, complex_dtype) for x in (*arrays, real(n) + 1j * real(n))]


def inputs(rng, *shape, dtype="float64"):
    return jnp.asarray(rng.normal(size=shape), dtype)


def sequential(log_lam, B, C, u, x0=None):
    """The definition."""
    x = jnp.zeros_like(log_lam) if x0 is None else x0
    x, y = jax.lax.scan(lambda x, u: lti_step(log_lam, B, C, x, u), x, u)
    return y, x


def assert_close(ours, theirs, dtype="float64"):
    """To the tolerance of the dtype, relative to the largest entry of each array."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        scale = max(np.abs(b).max(initial=0), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * scale)


def gradients(form, weights):
    """Gradients of a loss that every output and the last state enter."""

    def loss(*arguments):
        y, x = form(*arguments)
        return jnp.sum(weights * y**2) + jnp.real(jnp.vdot(x, x)) + jnp.sum(jnp.imag(x))

    return jax.jit(lambda *a: jax.grad(loss, argnums=tuple(range(len(a))))(*a))


@EVERY_FORM
@pytest.mark.parametrize(
    ("dtype", "L"), [("float64", 1), ("float64", 8), ("float64", 27), ("float32", 27)]
)
def test_values_and_every_gradient_equal_the_definition(x64, kernel, choice, dtype, L):
    rng = np.random.default_rng(L)
    log_lam, B, C, x0 = system(rng, dtype)
    u = inputs(rng, L, 2, dtype=dtype)
    arguments, weights = (log_lam, B, C, u, x0), inputs(rng, L, 3, dtype=dtype)

    def both(form):
        return jax.jit(form)(*arguments), gradients(form, weights)(*arguments)

    with recurrence_form(*choice):
        ours = both(lti_apply)
    assert_close(ours, both(sequential), dtype)


@EVERY_FORM
def test_a_missing_state_is_zero(x64, choice):
    rng = np.random.default_rng(0)
    *arrays, _ = system(rng)
    u, weights = inputs(rng, 11, 2), inputs(rng, 11, 3)
    with recurrence_form(*choice):
        ours = gradients(lti_apply, weights)(*arrays, u)
    assert_close(ours, gradients(sequential, weights)(*arrays, u))


def test_states_added_for_a_gpu_change_nothing(x64, monkeypatch):
    rng = np.random.default_rng(4)
    *arrays, x0 = system(rng)
    arguments, weights = (*arrays, inputs(rng, 11, 2), x0), inputs(rng, 11, 3)
    monkeypatch.setitem(ALIGNED, "cpu", 8)
    assert stored_states(5) == 8

    def ours(*arguments):
        return lti_apply(*arguments)

    with recurrence_form("matmul", 4):
        assert_close(jax.jit(ours)(*arguments), sequential(*arguments))
        assert_close(
            gradients(ours, weights)(*arguments), gradients(sequential, weights)(*arguments)
        )
    assert_close(ours(*arguments[:-1]), sequential(*arguments[:-1]))


@EVERY_FORM
def test_reverse_is_the_flipped_sequence(x64, choice):
    rng = np.random.default_rng(1)
    log_lam, B, C, x0 = system(rng)
    u, weights = inputs(rng, 11, 2), inputs(rng, 11, 3)

    def flipped(log_lam, B, C, u, x0):
        y, x = sequential(log_lam, B, C, u[::-1], x0)
        return y[::-1], x

    def ours(*arguments):
        return lti_apply(*arguments, reverse=True)

    arguments = log_lam, B, C, u, x0
    with recurrence_form(*choice):
        assert_close(jax.jit(ours)(*arguments), flipped(*arguments))
        assert_close(gradients(ours, weights)(*arguments), gradients(flipped, weights)(*arguments))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_padding_changes_nothing(x64, reverse, with_state):
    rng = np.random.default_rng(2)
    *arrays, x0 = system(rng)
    arguments = [*arrays, inputs(rng, 3, 12, 2)] + [x0] * with_state
    lengths = jnp.asarray([12, 7, 1])
    weights = inputs(rng, 12, 3)

    def loss(y, x):  # outputs in the padding would count
        return jnp.sum(weights * (y + y**2)) + jnp.real(jnp.vdot(x, x))

    def padded(*arguments):
        log_lam, B, C, u, *state = arguments
        y, x = jax.vmap(
            lambda u, k: lti_apply(log_lam, B, C, u, *state, reverse=reverse, length=k)
        )(u, lengths)
        return jnp.sum(jax.vmap(loss)(y, x))

    def cut(*arguments):
        log_lam, B, C, u, *state = arguments
        total = 0.0
        for k, row in zip([12, 7, 1], u, strict=True):
            y, x = lti_apply(log_lam, B, C, row[:k], *state, reverse=reverse)
            total += loss(jnp.pad(y, ((0, 12 - k), (0, 0))), x)
        return total

    argnums = tuple(range(len(arguments)))
    ours, expected = (jax.jit(jax.value_and_grad(f, argnums)) for f in (padded, cut))
    assert_close(ours(*arguments), expected(*arguments))


@EVERY_FORM
def test_gradients_of_a_batch_are_the_sum(x64, choice):
    rng = np.random.default_rng(3)
    log_lam, B, C, x0 = system(rng)
    u, weights = inputs(rng, 2, 3, 11, 2), inputs(rng, 2, 3, 11, 3)

    def batched(form):
        def loss(log_lam, B, C, u, x0):
            one = lambda u: form(log_lam, B, C, u, x0)  # noqa: E731
            y, x = jax.vmap(jax.vmap(one))(u)
            return jnp.sum(weights * y**2) + jnp.sum(jnp.abs(x) ** 2)

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))

    arguments = log_lam, B, C, u, x0
    with recurrence_form(*choice):
        ours = batched(lti_apply)(*arguments)
    assert_close(ours, batched(sequential)(*arguments))


@EVERY_FORM
def test_gradients_of_every_sequence_and_of_every_model(x64, kernel, choice):
    rng = np.random.default_rng(4)
    models = [system(rng) for _ in range(2)]
    log_lam, B, C, x0 = (jnp.stack(arrays) for arrays in zip(*models, strict=True))
    u, weights = inputs(rng, 3, 9, 2), inputs(rng, 9, 3)

    def every(form):
        one = gradients(form, weights)
        each = jax.vmap(one, in_axes=(None, None, None, 0, None))
        return jax.jit(jax.vmap(each, in_axes=(0, 0, 0, None, 0)))(log_lam, B, C, u, x0)

    with recurrence_form(*choice):
        ours = every(lti_apply)
        ensemble = jax.vmap(lti_apply, in_axes=(0, 0, 0, None, 0))(log_lam, B, C, u[0], x0)
    assert_close(ours, every(sequential))
    for i, model in enumerate(models):
        expected = sequential(*model[:3], u[0], model[3])
        assert_close([x[i] for x in ensemble], expected)


def test_the_form_is_chosen_for_the_whole_batch(monkeypatch):
    sizes = []

    def spy(size, **_):
        sizes.append(size)
        return Choice("scan", 8)

    monkeypatch.setattr("zoo.recurrence.linear.choose_form", spy)
    *arrays, _ = system(np.random.default_rng(5), "float32")
    u = jnp.ones((4, 6, 10, 2))
    f = lambda B: jnp.sum(jax.vmap(jax.vmap(lambda u: lti_apply(arrays[0], B, arrays[2], u)[0]))(u))  # noqa: E731
    jax.jit(jax.grad(lambda B: jnp.real(f(B)))).trace(arrays[1])
    assert sizes[-1] == Size(24, 10, 2, 3, 5)


def test_memory_of_the_backward_pass_is_that_of_chunks():
    """A system whose states at all samples would take 64 MiB."""
    *arrays, _ = system(np.random.default_rng(6), "float32", n=512)
    u = jax.ShapeDtypeStruct((4, 4096, 2), jnp.float32)
    for form, chunk in [("scan", 128), ("fused", 128), ("matmul", 16), ("fft", 32)]:

        def loss(log_lam, B, C, u):
            return jnp.sum(jax.vmap(lambda u: lti_apply(log_lam, B, C, u)[0])(u) ** 2)

        with recurrence_form(form, chunk):
            compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(*arrays, u).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 40 * 2**20, form


def test_the_gradient_lowers_for_a_gpu(lowers_for_cuda):
    *arrays, x0 = system(np.random.default_rng(7), "float32")
    u = jax.ShapeDtypeStruct((4, 200, 2), jnp.float32)
    a = jax.ShapeDtypeStruct((4, 20, 8), jnp.float32)

    def loss(log_lam, B, C, u):
        y, x = jax.vmap(lambda u: lti_apply(log_lam, B, C, u, x0))(u)
        return jnp.sum(y**2) + jnp.sum(jnp.abs(x) ** 2)

    for choice in FORMS:
        with recurrence_form(*choice):
            gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
            assert ("xla.gpu.triton" in lowers_for_cuda(gradient, *arrays, u)) == (
                choice.form == "matmul"
            )
    states = jax.jit(jax.grad(lambda a, b: jnp.sum(jax.vmap(linear_recurrence)(a, b) ** 2)))
    assert "xla.gpu.triton" in lowers_for_cuda(states, a, a)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_every_size_has_a_form(platform):
    for b, L, m, n in [(1, 1, 1, 1), (50, 784, 8, 256), (1, 65536, 512, 4096)]:
        for fused in (True, False):
            choice = choose_form(Size(b, L, m, m, n), platform, fused=fused)
            assert choice.chunk >= 1
            assert choice.form != "fused" or (fused and platform == "cpu")


def test_the_costs_of_a_cpu_go_through_what_was_measured():
    np.testing.assert_allclose(on_cores(1), ONE_CORE)
    np.testing.assert_allclose(on_cores(2), TWO_CORES)
    assert all(cost >= 0 for cost in on_cores(64))
    assert on_cores(64).flop < TWO_CORES.flop


def test_one_core_takes_transforms_where_two_take_products(monkeypatch):
    size = Size(50, 784, 8, 8, 208)
    for cores, form in ((1, "fft"), (2, "matmul")):
        monkeypatch.setattr("zoo.recurrence.choice.usable_cores", lambda cores=cores: cores)
        assert choose_form(size, "cpu", fused=False).form == form


def test_wide_systems_of_few_states_keep_them_all_and_narrow_ones_never(monkeypatch):
    """With chunks of one sample no product is wasted, but all states are kept."""
    monkeypatch.setattr("zoo.recurrence.choice.usable_cores", lambda: 2)
    for fused in (True, False):
        form = lambda *size: choose_form(Size(*size), "cpu", fused=fused)  # noqa: B023, E731
        assert form(2, 1024, 512, 512, 93) == Choice("matmul", 1)
        assert form(50, 784, 8, 8, 28).chunk > 8
        assert form(1, 65536, 64, 64, 4096).chunk > 1


def test_narrow_systems_go_through_the_kernel_where_there_is_one():
    assert choose_form(Size(50, 784, 8, 8, 28), "cpu", fused=True).form == "fused"


def test_a_wrong_form_is_named():
    with (
        pytest.raises(ValueError, match=r"`form` must be one of .*scan.*got 'loop'"),
        recurrence_form("loop", 4),
    ):
        pass
    with (
        pytest.raises(ValueError, match="`chunk` must be 1 or more samples, got 0"),
        recurrence_form("scan", 0),
    ):
        pass


def associative(a, b, x0):
    """All states by `jax.lax.associative_scan`, which autodiff goes through."""
    combine = lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1])  # noqa: E731
    return jax.lax.associative_scan(combine, (a, b.at[0].add(a[0] * x0)))[1]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("shape", "reverse"), [((1, 3), False), ((17,), True), ((17, 2, 3), False), ((6, 2), True)]
)
def test_linear_recurrence_values_and_gradients(x64, kernel, dtype, shape, reverse):
    rng = np.random.default_rng(8)

    def draw(*shape):
        x = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        return jnp.asarray(x.real if "float" in dtype else x, dtype)

    arguments = 0.5 * draw(*shape), draw(*shape), draw(*shape[1:])
    weights = draw(*shape)

    def expected(a, b, x0):
        return associative(a[::-1], b[::-1], x0)[::-1] if reverse else associative(a, b, x0)

    def both(form):
        def loss(*arguments):
            return jnp.real(jnp.sum(weights * form(*arguments) ** 2))

        return jax.jit(lambda *a: (form(*a), jax.grad(loss, argnums=(0, 1, 2))(*a)))(*arguments)

    ours = both(lambda *a: linear_recurrence(*a, reverse=reverse))
    precision = "float32" if dtype in ("float32", "complex64") else "float64"
    assert_close(ours, both(expected), precision)


def test_its_gradient_can_be_differentiated_forwards(x64, kernel):
    a, b, v = jnp.asarray(np.random.default_rng(0).uniform(-0.9, 0.9, (3, 12, 4)))

    def loop(a, b):
        def step(x, each):
            x = each[0] * x + each[1]
            return x, x

        return jax.lax.scan(step, jnp.zeros(4), (a, b))[1]

    ours, theirs = (
        jax.jvp(jax.grad(lambda a, f=f: jnp.sum(jnp.sin(f(a, b)))), (a,), (v,))[1]
        for f in (linear_recurrence, loop)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_linear_recurrence_with_constant_coefficients_is_the_lti(x64):
    rng = np.random.default_rng(9)
    log_lam, B, C, x0 = system(rng)
    u = inputs(rng, 9, 2)
    states = linear_recurrence(jnp.broadcast_to(jnp.exp(log_lam), (9, 5)), u @ B.T, x0)
    y, last = lti_apply(log_lam, B, C, u, x0)
    np.testing.assert_allclose(jnp.real(states @ C.T), y, rtol=1e-11)
    np.testing.assert_allclose(states[-1], last, rtol=1e-11)


def test_gradients_of_a_batch_of_recurrences(x64):
    rng = np.random.default_rng(10)
    a, b, x0 = (inputs(rng, *shape) for shape in ((3, 9, 4), (3, 9, 4), (4,)))

    def gradient(form):
        batch = jax.vmap(form, in_axes=(0, 0, None))
        loss = lambda a, b, x0: jnp.sum(jnp.sin(batch(a, b, x0)))  # noqa: E731
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(a, b, x0)

    assert_close(gradient(linear_recurrence), gradient(associative))


linear_all = jax.vmap(linear_recurrence)
lti_all = jax.vmap(lambda *arguments: lti_apply(*arguments)[0], in_axes=(None, None, None, 0))


@pytest.mark.parametrize("kernel", [False], indirect=True)
@pytest.mark.parametrize("varying", [False, True], ids=["time-invariant", "time-varying"])
def test_no_step_of_a_loop_copies_a_whole_sequence(kernel, varying):
    """States are written in the place of what drives them, where XLA finds that safe."""
    rng = np.random.default_rng(0)
    if varying:
        a, b = inputs(rng, 2, 3, 64, 10, dtype="float32")
        program = jax.grad(lambda a, b: jnp.sum(linear_all(a, jnp.sin(b)) ** 2), (0, 1))
        arguments = a, b
    else:
        system_, u = system(rng, "float32")[:3], inputs(rng, 3, 64, 2, dtype="float32")
        program = jax.grad(lambda s, u: jnp.sum(lti_all(*s, u) ** 2), (0, 1))
        arguments = system_, u
    with recurrence_form("matmul", 1):
        text = jax.jit(program).lower(*arguments).compile().as_text()
    # small loops stand in a function of their own from JAX 0.11 on, no longer in the entry
    assert len(re.findall(r" while\(.* body=", text)) == 2, "one forwards, one backwards"
    assert not re.findall(r"= f32\[3,64,\S* copy\(.*", text[: text.index("ENTRY ")])


def test_explicit_mesh_axes_are_refused():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    a = jax.device_put(jnp.ones((2, 5, 3)), NamedSharding(mesh, PartitionSpec("d")))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="got the explicit axis 'd'"):
        jax.jit(jax.vmap(linear_recurrence))(a, a)
