"""The optimizer's state across a shrink: exact where it can be, close where it should be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import balanced_truncation, compress
from compress.linear import lift
from compress.linear.jacobian import PerEntry, derivatives
from compress.linear.lift import Projection, is_real, pull_back, pull_back_squares
from compress.numerics.precision import double_lti, from_double_lti
from zoo import LRU, S5, AbstractLinearSSM, DiagonalLTI

H, N, R, LENGTH = 2, 24, 14, 150


def lru(key):
    """Its gamma_log has been trained away from the value that `from_lti` gives it."""
    layer = LRU.init(H, N, key=key, r_min=0.3, r_max=0.95)
    return eqx.tree_at(lambda m: m.gamma_log, layer, layer.gamma_log + jnp.linspace(-0.5, 0.5, N))


def s5(key):
    return S5.init(H, N, key=key)


def s5_bilinear(key):
    return S5.init(H, N, key=key, discretization="bilinear")


LAYERS = pytest.mark.parametrize("make", [lru, s5, s5_bilinear])


@eqx.filter_jit
def gradient(layer, u, target):
    return eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(u) - target) ** 2))(layer)


def gradient_of_a_smooth_loss(layer):
    u = jax.random.normal(jax.random.key(3), (32, LENGTH, H))
    return gradient(layer, u, jnp.cumsum(u, axis=1) / 10)


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))


def numbers(tree):
    return {k: np.asarray(x, np.float64) for k, x in enumerate(jax.tree.leaves(tree))}


def random_entries(rng, lti):
    def normal(shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    return PerEntry(*(normal(x.shape) for x in (lti.log_lam, lti.B, lti.C)))


def flat(entries):
    z = np.concatenate([x.ravel() for x in entries])
    return np.concatenate([z.real, z.imag])


def unflat(x, like):
    z = x[: len(x) // 2] + 1j * x[len(x) // 2 :]
    pieces = np.split(z, np.cumsum([y.size for y in like])[:-1])
    return PerEntry(*(piece.reshape(y.shape) for piece, y in zip(pieces, like, strict=True)))


# ------------------------------------------------------------------ the linear maps themselves


@LAYERS
def test_parameters_pull_back_as_jax_does(make, getkey, x64):
    layer = jax.tree.map(lambda x: x.astype(jnp.float64), make(getkey()))
    parameters, lti = derivatives(layer), layer.to_lti()
    g = random_entries(np.random.default_rng(0), lti)

    def loss(layer):
        lti = layer.to_lti()
        entries = zip(g, (lti.log_lam, lti.B, lti.C), strict=True)
        return sum(jnp.sum(jnp.real(jnp.conj(a) * x)) for a, x in entries)

    expected = numbers(eqx.filter_grad(loss)(layer))
    pulled = parameters.from_system(g)
    assert [k for k in expected if k not in pulled] == [6 if isinstance(layer, S5) else 7]  # D
    for k, x in pulled.items():
        np.testing.assert_allclose(x, expected[k], rtol=1e-8, atol=1e-10)
    for x, y in zip(parameters.to_system(pulled), g, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)


def projections(lti, rank):
    """Of the complex system, and of the real map, where there are real modes too."""
    cut, real = (balanced_truncation(lti, rank, form=form) for form in ("complex", "real"))
    return {
        "complex": Projection(cut.lti.log_lam, cut.V, cut.W),
        "real": Projection(real.lti.log_lam, real.V, real.W, real.V_conj, real.W_conj),
    }


FORMS = pytest.mark.parametrize("form", ["complex", "real"])


@FORMS
def test_pull_back_is_the_adjoint_of_the_lift(form, getkey, monkeypatch, x64):
    monkeypatch.setattr(lift, "RESOLUTION", 1e-12)
    lti = double_lti(lru(getkey()))
    real = np.where(np.arange(N) < 4, lti.log_lam.real, lti.log_lam)
    lti = eqx.tree_at(lambda m: m.log_lam, lti, real)
    for rank in range(R, 4, -1):  # until there is a real mode
        to = projections(lti, rank)[form]
        if form == "complex" or np.any(is_real(to.log_lam)):
            break
    assert form == "complex" or np.any(is_real(to.log_lam))
    V, W = to.V, to.W
    V_conj, W_conj = (
        np.zeros_like(x) if y is None else y for x, y in ((V, to.V_conj), (W, to.W_conj))
    )
    V2, W2 = (
        np.block([[x, y], [y.conj(), x.conj()]]) for x, y in ((V, V_conj), (W, W_conj))
    )  # of the doubled system
    lam, lam_r = np.exp(lti.log_lam), np.exp(to.log_lam)
    lam2 = np.concatenate([lam, lam.conj()])
    gap = lam2[None, :] - lam2[:, None]
    same = gap == 0

    def lifted(log_lam_r, B_r, C_r):
        """Written as in the module's text."""
        change = lam_r * log_lam_r
        A = V2 @ jnp.diag(jnp.concatenate([change, jnp.conj(change)])) @ W2
        X = jnp.where(same, 0, A / np.where(same, 1, gap))
        B = V2 @ jnp.concatenate([B_r, jnp.conj(B_r)]) - X @ np.concatenate([lti.B, lti.B.conj()])
        C = jnp.concatenate([C_r, jnp.conj(C_r)], axis=1) @ W2
        C = C + np.concatenate([lti.C, lti.C.conj()], axis=1) @ X
        return jnp.diag(A)[:N] / lam, B[:N], C[:, :N]

    g = random_entries(np.random.default_rng(1), lti)
    # JAX's cotangents of complex numbers are the conjugates of these gradients
    reduced = (x.astype(complex) for x in (lam_r, W @ lti.B, lti.C @ V))
    _, pull = jax.vjp(lifted, *(jnp.zeros_like(x) for x in reduced))
    expected = pull(tuple(jnp.conj(x) for x in g))
    for x, y in zip(pull_back(g, lti, to), expected, strict=True):
        np.testing.assert_allclose(x, np.conj(y), rtol=1e-9, atol=1e-8)


@FORMS
def test_squares_are_carried_by_squared_coefficients(form, getkey, monkeypatch):
    monkeypatch.setattr(lift, "RESOLUTION_OF_SQUARES", lift.RESOLUTION)
    layer = LRU.init(H, 6, key=getkey(), r_min=0.3, r_max=0.9)
    lti = double_lti(layer)
    projection = projections(lti, 3)[form]
    rng = np.random.default_rng(2)
    like = random_entries(rng, lti)
    matrix = np.stack(
        [
            flat(pull_back(unflat(row, like), lti, projection))
            for row in np.eye(2 * sum(x.size for x in like))
        ]
    )
    squares = rng.random(len(matrix))
    carried = pull_back_squares(unflat(squares, like), lti, projection)
    np.testing.assert_allclose(flat(carried), squares @ matrix**2, rtol=1e-10, atol=1e-12)


def test_many_channels_are_mixed_without_bias():
    rng = np.random.default_rng(3)
    n, m = 12, 200
    B = rng.standard_normal((n, m)) + 1j * rng.standard_normal((n, m))
    squares = np.outer(rng.random(n), rng.random(m)) * (1 + 0.5j)
    change = rng.standard_normal((n, n))
    sums = [
        np.sum(np.abs(change @ matrix) ** 2 * square, axis=1)
        for matrix, square in ((B, squares), lift._mixed(B, squares))
    ]
    assert lift._mixed(B, squares)[0].shape == (n, lift.CHANNELS)
    np.testing.assert_allclose(np.sum(sums[1]), np.sum(sums[0]), rtol=0.15)
    np.testing.assert_allclose(sums[1], sums[0], rtol=0.7)


# ----------------------------------------------------------------------------- first moments


@LAYERS
def test_a_change_of_basis_carries_gradients_exactly(make, getkey):
    """All states permuted and scaled: what comes out is the gradient there, up to rounding."""
    layer = make(getkey())
    lti, order = double_lti(layer), np.random.default_rng(0).permutation(N)
    scale = np.exp(np.linspace(-1, 1, N) + 1j * np.arange(N))
    V = np.eye(N)[:, order] * scale
    W = np.linalg.inv(V)
    same = DiagonalLTI(lti.log_lam[order], W @ lti.B, lti.C @ V, lti.D)
    after = from_double_lti(layer, same)
    given, expected = (numbers(gradient_of_a_smooth_loss(m)) for m in (layer, after))
    pulled = pull_back(derivatives(layer).to_system(given), lti, Projection(same.log_lam, V, W))
    for k, x in derivatives(after).from_system(pulled).items():
        np.testing.assert_allclose(x, expected[k], rtol=2e-3, atol=2e-4 * np.abs(expected[k]).max())


@LAYERS
@pytest.mark.parametrize("rank", [20, 14])
@FORMS
def test_carried_gradients_are_those_of_the_reduced_model(make, rank, form, getkey):
    layer = make(getkey())
    optimizer = optax.trace(0.0)
    _, state = optimizer.update(gradient_of_a_smooth_loss(layer), optimizer.init(layer))
    small, state = compress(layer, state, ranks=rank, form=form)
    expected = jax.tree.leaves(gradient_of_a_smooth_loss(small))
    for x, y in zip(jax.tree.leaves(state.trace), expected, strict=True):
        assert cosine(x, y) > (0.95 if rank == 20 else 0.85)
        assert 0.5 < np.linalg.norm(x) / np.linalg.norm(y) < 2


def test_slicing_does_not_carry_gradients(getkey):
    """What the test above would see if old moments were cut off in the old coordinates."""
    layer = lru(getkey())
    optimizer = optax.trace(0.0)
    _, state = optimizer.update(gradient_of_a_smooth_loss(layer), optimizer.init(layer))
    small, state = compress(layer, state, ranks=R, moments="slice")
    assert cosine(state.trace.C_re, gradient_of_a_smooth_loss(small).C_re) < 0.8


# ------------------------------------------------------------------------------- optimizers


def labels(params):
    """Two groups, as the training script has them."""

    def label(path, _):
        return "ssm" if path[-1].name in LRU.dynamics + S5.dynamics else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


OPTIMIZERS = {
    "adamw": optax.adamw(1e-3),
    "chain": optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(1e-3, 100)),
        optax.add_decayed_weights(1e-2),
    ),
    "groups": optax.multi_transform({"ssm": optax.adam(1e-4), "rest": optax.adamw(1e-3)}, labels),
    "frozen": optax.multi_transform({"ssm": optax.set_to_zero(), "rest": optax.adam(1e-3)}, labels),
    "masked": optax.masked(optax.trace(0.9), lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
    "injected": optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3),
    "multi_steps": optax.MultiSteps(optax.adamw(1e-3), 3),
    "sgd": optax.sgd(1e-3),
    "momentum": optax.sgd(1e-3, momentum=0.9, nesterov=True),
    "lion": optax.lion(1e-4),
    "rmsprop": optax.rmsprop(1e-3, momentum=0.9),
    "amsgrad": optax.amsgrad(1e-3),
    "adagrad": optax.adagrad(1e-3),
    "adafactor": optax.adafactor(1e-3),
    "adafactor_factored": optax.adafactor(1e-3, min_dim_size_to_factor=2),
    "novograd": optax.novograd(1e-3),
    "sm3": optax.sm3(1e-3),
    "lbfgs": optax.scale_by_lbfgs(3),
    "half": optax.adamw(1e-3, mu_dtype=jnp.bfloat16),
    "ema": optax.chain(optax.adam(1e-3), optax.ema(0.9)),
    "schedule_free": optax.contrib.schedule_free_adamw(1e-3),
    "prodigy": optax.contrib.prodigy(),
    "finite": optax.apply_if_finite(optax.adamw(1e-3), 3),
}


def describe(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


LIKE_OTHERS = ("amsgrad", "adagrad", "adafactor", "ema", "momentum", "novograd", "rmsprop")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LIKE_OTHERS)) for n in OPTIMIZERS],
)
def test_every_optimizer_goes_on(name, getkey):
    optimizer = OPTIMIZERS[name]
    model = {"first": lru(jax.random.key(0)), "second": (s5(jax.random.key(1)),)}
    traces = []

    @jax.jit
    def update(grads, state, params):
        traces.append(name)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, jax.tree.map(lambda x: 1e-3 * x, updates)), state

    def grads_of(model):
        return jax.tree.map(lambda x: jax.random.normal(getkey(), x.shape) * 0.1, model)

    state = optimizer.init(model)
    for _ in range(2):
        model, state = update(grads_of(model), state, model)
    model, state = compress(model, state, ranks={"['first']": 7, "['second'][0]": 9})
    assert describe(state) == describe(optimizer.init(model))
    for _ in range(2):
        model, state = update(grads_of(model), state, model)
    assert len(traces) == 2
    for x in jax.tree.leaves((model, state)):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("moments", ["transport", "reset", "slice"])
@LAYERS
def test_an_adamw_step_after_the_cut(make, moments, getkey):
    layer, optimizer = make(getkey()), optax.adamw(1e-3, weight_decay=0.1)
    state = optimizer.init(layer)
    for _ in range(3):
        updates, state = optimizer.update(gradient_of_a_smooth_loss(layer), state, layer)
        layer = eqx.apply_updates(layer, updates)
    before = [jnp.abs(m) / jnp.sqrt(v) for m, v in moment_pairs(state)]
    small, carried = compress(layer, state, ranks=R, moments=moments)
    assert carried[0].count == 3
    for v in jax.tree.leaves(carried[0].nu):
        assert np.all(np.isfinite(v))
        assert np.all(np.asarray(v) >= 0)
    if moments == "transport":
        after = [jnp.abs(m) / jnp.sqrt(v) for m, v in moment_pairs(carried)]
        assert max(map(jnp.max, after)) <= max(map(jnp.max, before)) * 1.001
    updates, carried = optimizer.update(gradient_of_a_smooth_loss(small), carried, small)
    small = eqx.apply_updates(small, updates)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(small))
    assert small.to_lti().spectral_radius() < 1


def moment_pairs(state):
    return zip(jax.tree.leaves(state[0].mu), jax.tree.leaves(state[0].nu), strict=True)


def test_second_moments_are_of_the_right_size(getkey):
    """Those of the reduced model itself, within a factor of ten (slicing is off by a thousand)."""
    layer = lru(getkey())
    small, _ = compress(layer, ranks=R)
    keys = jax.random.split(getkey(), 40)

    @eqx.filter_jit
    def mean_squares(layer):
        def squares(key):
            u = jax.random.normal(key, (4, LENGTH, H))
            return jax.tree.map(jnp.square, gradient(layer, u, jnp.cumsum(u, axis=1) / 10))

        return jax.tree.map(lambda x: jnp.mean(x, axis=0), jax.lax.map(squares, keys))

    state = optax.ScaleByRmsState(nu=mean_squares(layer))
    _, carried = compress(layer, state, ranks=R)
    for x, y in zip(jax.tree.leaves(carried.nu), jax.tree.leaves(mean_squares(small)), strict=True):
        assert abs(np.median(np.log10(np.asarray(x) / np.asarray(y)))) < 1


def test_groups_are_carried_together(getkey):
    """Moments in two parts, one for each group, come out as those in one piece."""
    layer = lru(getkey())
    one, two = optax.adam(1e-3), OPTIMIZERS["groups"]
    grads = gradient_of_a_smooth_loss(layer)
    (_, one_state), (_, two_state) = (o.update(grads, o.init(layer), layer) for o in (one, two))
    _, one_state = compress(layer, one_state, ranks=R)
    _, two_state = compress(layer, two_state, ranks=R)
    inner = {name: group.inner_state[0] for name, group in two_state.inner_states.items()}
    for k, field in enumerate(["nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im"]):
        group = inner["ssm" if field in LRU.dynamics else "rest"]
        for moment in ("mu", "nu"):
            expected = getattr(getattr(one_state[0], moment), field)
            np.testing.assert_allclose(getattr(getattr(group, moment), field), expected, rtol=1e-5)
        assert k < 5 or isinstance(getattr(inner["ssm"].mu, field), optax.MaskedNode)


def test_what_lies_outside_stays(getkey):
    model = (eqx.nn.Linear(2, 2, key=getkey()), lru(getkey()))
    optimizer = optax.adamw(1e-3)
    state = optimizer.init(model)
    grads = jax.tree.map(lambda x: jax.random.normal(getkey(), x.shape), model)
    _, state = optimizer.update(grads, state, model)
    for moments in ("transport", "reset", "slice"):
        _, carried = compress(model, state, ranks=R, moments=moments)
        assert carried[0].count is state[0].count
        assert carried[0].mu[0].weight is state[0].mu[0].weight
        assert carried[0].nu[1].D is state[0].nu[1].D
        np.testing.assert_array_equal(carried[0].mu[1].D, state[0].mu[1].D)
    _, reset = compress(model, state, ranks=R, moments="reset")
    assert not np.any(reset[0].mu[1].B_re)
    _, sliced = compress(model, state, ranks=R, moments="slice")
    np.testing.assert_array_equal(sliced[0].nu[1].C_im, state[0].nu[1].C_im[:, :R])


@pytest.mark.parametrize("make", [lru, s5])
@FORMS
@pytest.mark.parametrize("name", ["params", "average"])  # by the field's name, or by its numbers
def test_copies_of_the_parameters_are_projected(make, form, name, getkey):
    layer = make(getkey())
    other = jax.tree.map(lambda x: x * 1.01, layer)
    small, state = compress(layer, {name: (layer, other)}, ranks=20, form=form)
    for x, y in zip(jax.tree.leaves(state[name][0]), jax.tree.leaves(small), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    u = jax.random.normal(getkey(), (LENGTH, H))
    small_other = state[name][1]
    run = eqx.filter_jit(lambda layer, u: layer(u))
    y, small_y, expected = run(small, u), run(small_other, u), run(other, u)
    assert jnp.linalg.norm(small_y - expected) < 0.1 * jnp.linalg.norm(expected)
    halfway = run(jax.tree.map(lambda x, y: (x + y) / 2, small, small_other), u)
    assert jnp.linalg.norm(halfway - y) < 0.2 * jnp.linalg.norm(y)


@pytest.mark.parametrize("make", [lru, s5])
def test_copies_of_the_parameters_are_refitted_with_them(make, getkey):
    layer = make(getkey())
    u = jnp.cumsum(jax.random.normal(getkey(), (4, LENGTH, H)), axis=1)
    how = {"ranks": 6, "batch": u, "states": False, "gradients": False, "refit": True}
    small, (average,) = compress(layer, (jax.tree.map(lambda x: x, layer),), **how)
    assert not np.array_equal(small.D, layer.D)
    for x, y in zip(jax.tree.leaves(average), jax.tree.leaves(small), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


def test_momentum_without_a_negative_number_is_momentum(getkey):
    """Carried with the squares beside it: no ratio of the two exceeds what it was."""
    layer = lru(getkey())
    optimizer = optax.adam(1e-3)
    gradients = jax.tree.map(lambda x: jnp.abs(jax.random.normal(getkey(), x.shape)), layer)
    _, state = optimizer.update(gradients, optimizer.init(layer))
    _, state = compress(layer, state, ranks=6)
    pairs = zip(jax.tree.leaves(state[0].mu), jax.tree.leaves(state[0].nu), strict=True)
    assert max(float(jnp.max(mu**2 / nu)) for mu, nu in pairs) <= 0.1**2 / 1e-3 * (1 + 1e-4)


def test_sums_over_axes_of_one_length_are_told_apart():
    layer, optimizer = LRU.init(8, 8, key=jax.random.key(0)), optax.sm3(1e-3)
    small, state = compress(layer, optimizer.init(layer), ranks=5)
    assert describe(state) == describe(optimizer.init(small))


def test_a_model_inside_a_tuple_is_matched_by_the_end_of_its_path(getkey):
    model = {"blocks": [lru(getkey()), lru(getkey())]}
    state = optax.adam(1e-3).init(model)
    _, carried = compress((model, "state"), state, ranks=[5, 6])
    assert [layer.d_state for layer in carried[0].mu["blocks"]] == [5, 6]


# ----------------------------------------------------------------------------------- refusals


class Mixed(AbstractLinearSSM):
    """A layer whose parameters do not act entry by entry: B is a product."""

    dynamics = ("log_decay",)
    log_decay: jax.Array
    left: jax.Array
    right: jax.Array
    D: jax.Array

    @property
    def d_model(self):
        return self.D.shape[0]

    @property
    def d_state(self):
        return self.log_decay.shape[0]

    def __call__(self, u):
        return self.to_lti().simulate(u)

    def init_state(self):
        return jnp.zeros(self.d_state, jnp.complex64)

    def step(self, carry, u_t):
        raise NotImplementedError

    def run(self, carry, u, length=None):
        raise NotImplementedError

    def to_lti(self):
        B = self.left @ self.right
        return DiagonalLTI(-jnp.exp(self.log_decay) + 0j, B + 0j, B.T + 0j, self.D)

    def from_lti(self, lti):
        B = jnp.real(lti.B)
        decay = jnp.log(-jnp.real(lti.log_lam))
        return Mixed(decay, B, jnp.eye(B.shape[1], dtype=B.dtype), jnp.asarray(lti.D))


def test_a_layer_of_another_make_can_be_cut_but_not_transported(getkey):
    layer = Mixed(
        jnp.linspace(-3.0, 0.0, 8),
        jax.random.normal(getkey(), (8, 2)),
        jax.random.normal(getkey(), (2, 2)),
        jnp.zeros(2),
    )
    state = optax.adam(1e-3).init(layer)
    with pytest.raises(ValueError, match=r"parameters of Mixed do not act entry by entry"):
        compress(layer, state, ranks=3)
    small, state = compress(layer, state, ranks=3, moments="reset")
    assert state[0].mu.left.shape == small.left.shape == (3, 2)


def test_states_of_another_model_are_refused(getkey):
    layer, other = lru(getkey()), LRU.init(H, N - 4, key=getkey())
    with pytest.raises(ValueError, match=r"\[0\].mu holds an array of shape \(20,\) for a param"):
        compress(layer, optax.adam(1e-3).init(other), ranks=5)


def test_states_that_fit_two_layers_are_refused(getkey):
    model = {"a": lru(getkey()), "b": lru(getkey())}
    state = optax.adam(1e-3).init(model["a"])
    with pytest.raises(ValueError, match=r"\[0\].mu fits \['a'\] and \['b'\] equally well"):
        compress(model, state, ranks=5)
    states = {name: optax.adam(1e-3).init(layer) for name, layer in model.items()}
    _, carried = compress(model, states, ranks=[5, 6])
    assert [carried[name][0].mu.d_state for name in "ab"] == [5, 6]


def test_of_layers_that_fit_alike_the_one_whose_path_begins_alike_owns_the_state(getkey):
    layers = lru(getkey()), lru(getkey())
    optimizer = optax.chain(optax.clip(1), optax.scale_by_adam())
    state = tuple(optimizer.init(layer) for layer in layers)
    state = eqx.tree_at(lambda s: s[1][1].mu, state, layers[1])  # a copy, cut as layer [1] is
    small, after = compress(layers, state, ranks=[4, 5])
    np.testing.assert_array_equal(after[1][1].mu.nu_log, small[1].nu_log)


def test_keys_of_dicts_say_nothing_of_what_is_there(getkey):
    layer, optimizer = lru(getkey()), optax.adam(1e-3)
    grads = gradient_of_a_smooth_loss(layer)
    _, expected = compress(layer, optimizer.update(grads, optimizer.init(layer))[1], ranks=5)
    state = optimizer.update({"params": grads}, optimizer.init({"params": layer}))[1]
    _, after = compress(layer, state, ranks=5)
    assert eqx.tree_equal(after[0].mu["params"], expected[0].mu)
