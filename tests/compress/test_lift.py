"""Gradients of the full system carried to the reduced one: exact where it can be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compress import Ranks, WhiteNoise, balanced_truncation, compress
from compress.linear import lift
from compress.linear.jacobian import PerEntry, derivatives
from compress.linear.lift import Projection, is_real, pull_back, pull_back_squares
from compress.linear.system import double_lti, from_double_lti
from zoo import LRU, S5, DiagonalLTI

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
    monkeypatch.setattr(lift, "blocks", lambda *_: [])  # they are no part of X
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
    small, state = compress(layer, state, policy=Ranks(rank), method=WhiteNoise(form))
    expected = jax.tree.leaves(gradient_of_a_smooth_loss(small))
    for x, y in zip(jax.tree.leaves(state.trace), expected, strict=True):
        assert cosine(x, y) > (0.95 if rank == 20 else 0.85)
        assert 0.5 < np.linalg.norm(x) / np.linalg.norm(y) < 2


def test_slicing_does_not_carry_gradients(getkey):
    """What the test above would see if old moments were cut off in the old coordinates."""
    layer = lru(getkey())
    optimizer = optax.trace(0.0)
    _, state = optimizer.update(gradient_of_a_smooth_loss(layer), optimizer.init(layer))
    small, state = compress(layer, state, policy=Ranks(R), moments="slice")
    assert cosine(state.trace.C_re, gradient_of_a_smooth_loss(small).C_re) < 0.8


# ------------------------------------------------------------- states that share an eigenvalue


def impulse_loss(form):
    """A loss of a system's impulse response, by its log_lam, B and C."""

    def loss(log_lam, B, C, target):
        h = jnp.einsum("pn,kn,nm->kpm", C, jnp.exp(jnp.arange(30)[:, None] * log_lam), B)
        return jnp.sum(jnp.abs((h if form == "complex" else jnp.real(h)) - target) ** 2)

    def gradient(lti, target):
        parts = (lti.log_lam, lti.B, lti.C)
        found = jax.grad(loss, argnums=(0, 1, 2))(*map(jnp.asarray, parts), target)
        return PerEntry(*(np.conj(x) for x in found))  # JAX's are the conjugates

    return gradient


@FORMS
@pytest.mark.parametrize("copies", [2, pytest.param(3, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("shared", ["B", "C"])
@pytest.mark.parametrize("distance", [0.0, 1e-9, 1e-5])
def test_gradients_by_a_shared_eigenvalue(form, copies, shared, distance, x64):
    """States that differ in B or C alone are one: its gradients are those by jax of that one."""
    rng = np.random.default_rng(copies)
    k, m = 4, 2

    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    log_lam = -rng.uniform(0.05, 0.4, k) + 1j * rng.uniform(0.3, 2.8, k)
    one = np.tile(normal(k, m), (copies, 1)) * np.repeat(normal(copies), k)[:, None]
    B, C = (one, normal(m, k * copies)) if shared == "B" else (normal(k * copies, m), one.T)
    moved = np.tile(log_lam, copies) + distance * normal(k * copies)
    full = DiagonalLTI(moved, B, C, np.zeros(m))
    cut = balanced_truncation(full, k, form=form)
    real = form == "real"
    to = Projection(cut.lti.log_lam, cut.V, cut.W, *((cut.V_conj, cut.W_conj) if real else ()))
    target = normal(30, m, m) if form == "complex" else rng.standard_normal((30, m, m))
    gradient = impulse_loss(form)
    pulled = pull_back(gradient(full, target), full, to)
    for x, y in zip(pulled, gradient(cut.lti, target), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3 * np.abs(y).max())


@pytest.mark.parametrize("make", [lru, s5])
@FORMS
def test_moments_of_a_shared_eigenvalue(make, form, getkey):
    """States i and i + N / 2 have one eigenvalue and one row of B: N / 2 states do the same."""
    layer = make(getkey())

    def twice(path, x):
        return x if path[-1].name in ("C_re", "C_im", "D") else jnp.concatenate([x[: N // 2]] * 2)

    layer = jax.tree_util.tree_map_with_path(twice, layer)
    optimizer = optax.trace(0.0)
    _, state = optimizer.update(gradient_of_a_smooth_loss(layer), optimizer.init(layer))
    small, state = compress(layer, state, policy=Ranks(N // 2), method=WhiteNoise(form))
    for x, y in zip(
        jax.tree.leaves(state.trace), jax.tree.leaves(gradient_of_a_smooth_loss(small)), strict=True
    ):
        assert np.linalg.norm(x - y) < 0.02 * np.linalg.norm(y)


@FORMS
def test_squares_of_a_shared_eigenvalue_are_carried_by_squared_coefficients(form, x64):
    rng = np.random.default_rng(4)

    def normal(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    log_lam = np.tile(-rng.uniform(0.05, 0.4, 3) + 1j * rng.uniform(0.3, 2.8, 3), 2)
    lti = DiagonalLTI(log_lam, np.tile(normal(3, 2), (2, 1)), normal(2, 6), np.zeros(2))
    to = projections(lti, 3)[form]
    like = random_entries(rng, lti)
    zeros = PerEntry(*(np.zeros_like(x) for x in like))
    by_lam = []
    for row in np.eye(12):
        unit = zeros._replace(log_lam=row[:6] + 1j * row[6:])
        by_lam.append(pull_back(unit, lti, to).log_lam)
    squares = rng.random(12)
    carried = pull_back_squares(zeros._replace(log_lam=squares[:6] + 1j * squares[6:]), lti, to)
    found = np.concatenate([carried.log_lam.real, carried.log_lam.imag])
    by_lam = np.array(by_lam)
    expected = squares @ np.concatenate([by_lam.real, by_lam.imag], axis=1) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("phase", [0.0, 0.3, np.pi / 4])
def test_gradients_by_the_eigenvalue_of_a_real_mode(phase, x64):
    """A real eigenvalue is its own conjugate's too. Its state is cut again, with one like it."""
    rng = np.random.default_rng(5)
    turn = np.exp(1j * phase)
    B, C = (rng.standard_normal(shape) + 0j for shape in ((2, 2), (2, 4)))
    B[1] += 1j * rng.standard_normal(2)
    C[:, [1, 3]] += 1j * rng.standard_normal((2, 2))
    B, C = np.tile(B * [[turn], [1]], (2, 1)), C / np.array([turn, 1, turn, 1])
    full = DiagonalLTI(np.tile([-0.2 + 0j, -0.1 + 1j], 2), B, C, np.zeros(2))
    cut = balanced_truncation(full, 2, form="real")
    target, gradient = rng.standard_normal((30, 2, 2)), impulse_loss("real")
    to = Projection(cut.lti.log_lam, cut.V, cut.W, cut.V_conj, cut.W_conj)
    pulled = pull_back(gradient(full, target), full, to)
    for x, y in zip(pulled, gradient(cut.lti, target), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * np.abs(y).max())
