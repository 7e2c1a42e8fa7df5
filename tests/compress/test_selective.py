"""Selective layers cut on data: exact where nothing is lost, and what follows a cut follows it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.linearize import to_lti
from compress import Data, Ranks, compress, plan
from compress.optimizer.carry import MODES
from compress.selective import moments
from compress.selective.cut import FoldedCut, SharedBasis, fold
from compress.selective.moments import contributions, parts, state_moments
from compress.selective.refit import Refit
from zoo import LRU, Mamba, Mamba2

D_MODEL, N, LENGTH, SEQUENCES = 6, 8, 40, 3  # one shape, so that programs are compiled once


def layer(tied: bool = False, seed: int = 0) -> Mamba:
    made = Mamba.init(D_MODEL, N, key=jax.random.key(seed), dt_rank=2, tied=tied)
    # eigenvalues apart from the start's, channels of one shape but different speeds
    return eqx.tree_at(lambda m: m.D, made, made.D * 0.5)


def inputs(seed: int = 1):
    return np.random.default_rng(seed).standard_normal((SEQUENCES, LENGTH, D_MODEL), np.float32)


def redundant(tied: bool) -> Mamba:
    """A layer of N states that N / 2 do the work of: pairs of equal eigenvalues, B and C parallel.

    The channels differ in speed where the layer is tied.
    """
    made = layer(tied)
    first = 2 * np.arange(N // 2)

    def pairs(rows, factor):
        rows = np.array(rows)
        rows[first + 1] = factor[:, None] * rows[first]
        return rows

    rng = np.random.default_rng(5)
    by_B, by_C = rng.uniform(0.5, 2, (2, N // 2))
    weight = np.asarray(made.x_proj.weight)
    B, C = weight[2 : 2 + N], weight[2 + N :]
    weight = np.concatenate([weight[:2], pairs(B, by_B), pairs(C, by_C)])
    spectrum = np.log(np.repeat(np.linspace(0.5, 6, N // 2), 2)).astype(np.float32)
    made = eqx.tree_at(lambda m: m.x_proj.weight, made, jnp.asarray(weight))
    if tied:
        speeds = jnp.asarray(rng.uniform(-1, 1, made.d_inner), jnp.float32)
        return eqx.tree_at(lambda m: (m.A_log.a, m.A_log.s), made, (jnp.asarray(spectrum), speeds))
    full = jnp.tile(jnp.asarray(spectrum), (made.d_inner, 1))
    return eqx.tree_at(lambda m: m.A_log, made, full)


@eqx.filter_jit
def run(made, u):
    return jax.vmap(made)(u)


def outputs(made, u):
    return np.asarray(run(made, jnp.asarray(u)))


@eqx.filter_jit
@eqx.filter_grad
def gradient_of_a_loss(made, u):
    return jnp.sum(jnp.sin(jax.vmap(made)(u)) * jnp.cos(jnp.arange(D_MODEL)))


def test_data_must_be_given():
    with pytest.raises(
        ValueError, match=r"`method` must be Data\(batch=.* for \['mixer'\], a Mamba"
    ):
        plan({"mixer": layer()})


def test_silence_is_named():
    model, u = {"mixer": layer()}, inputs()
    for data in ({"inputs": [0 * u]}, {"inputs": [u], "gradients": [0 * u]}):
        method = Data(**data)
        with pytest.raises(ValueError, match=r"reach the states of \['mixer'\].* sigma are zero"):
            compress(model, policy=Ranks(4), method=method)
        assert compress(model, policy=Ranks(N), method=method)[0] is model
        assert compress(model, tolerance=0.5, method=method)[0] is model


def test_inputs_and_gradients_are_of_the_same_samples():
    with pytest.raises(ValueError, match=r"^`gradients` for Mamba must have .*, got \(3, 39, 6\)"):
        plan(layer(), method=Data(inputs=[inputs()], gradients=[inputs()[:, 1:]]))


def test_all_states_change_nothing():
    made = layer()
    same, _ = compress(made, policy=Ranks(N), batch=inputs())
    assert same is made


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_redundant_states_cost_nothing(tied, refit):
    made = redundant(tied)
    small, _ = compress(made, tolerance=1e-9, method=Data(inputs(), refit=refit))
    assert small.d_state == N // 2
    expected = outputs(made, inputs(2))
    np.testing.assert_allclose(outputs(small, inputs(2)), expected, atol=2e-5 * expected.std())


def test_more_states_lose_less_and_refitting_less_still():
    made, u = layer(), inputs()
    errors = {
        refit: [
            np.mean(
                np.square(
                    outputs(made, u)
                    - outputs(compress(made, policy=Ranks(r), method=Data(u, refit=refit))[0], u)
                )
            )
            for r in (1, 4)
        ]
        for refit in (False, True)
    }
    assert errors[False][1] < 0.3 * errors[False][0]
    assert errors[True][0] < errors[False][0]
    assert errors[True][1] < errors[False][1]


@pytest.mark.parametrize("n", [5, N])
def test_a_fit_of_all_states_changes_nothing(n):
    """Also of a number of states that is padded in the program."""
    made = Mamba.init(D_MODEL, n, key=jax.random.key(3), dt_rank=2)
    V = np.eye(n)[None]
    np.testing.assert_allclose(Refit(made, inputs()).fitted(made, V), V, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e20])
def test_a_fit_does_not_depend_on_the_size_of_gradients(scale):
    made, u = Mamba.init(D_MODEL, 4, key=jax.random.key(3), dt_rank=2), inputs()
    small = made.first_states(3)
    V = np.eye(4)[None, :, :3]
    g = np.random.default_rng(0).standard_normal(u.shape)
    expected = Refit(made, u, g).fitted(small, V)
    assert np.abs(expected - V).max() > 1e-3
    np.testing.assert_allclose(Refit(made, u, scale * g).fitted(small, V), expected, rtol=1e-6)


def test_the_result_is_a_layer_like_any_other():
    small, _ = compress(layer(), policy=Ranks(4), batch=inputs())
    like = Mamba.init(D_MODEL, 4, key=jax.random.key(0), dt_rank=2)
    assert jax.tree.structure(small) == jax.tree.structure(like)
    assert [x.shape for x in jax.tree.leaves(small)] == [x.shape for x in jax.tree.leaves(like)]
    u = jnp.asarray(inputs(3))
    _, steps = jax.lax.scan(lambda carry, u_t: small.step(carry, u_t), small.init_state(), u[0])
    np.testing.assert_allclose(steps, outputs(small, u)[0], atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_optimizer_state_fits(mode):
    made = layer()
    optimizer = optax.chain(optax.ema(0.9), optax.scale_by_adam(), optax.scale(-1e-3))
    state = optimizer.init(eqx.filter(made, eqx.is_array))
    small, moved = compress(made, state, policy=Ranks(4), batch=inputs(), moments=mode)
    fresh = optimizer.init(eqx.filter(small, eqx.is_array))
    assert jax.tree.structure(moved) == jax.tree.structure(fresh)
    assert [x.shape for x in jax.tree.leaves(moved)] == [x.shape for x in jax.tree.leaves(fresh)]


@pytest.mark.parametrize("tied", [False, True])
def test_carried_gradients_are_the_gradients(tied):
    made, u = redundant(tied), jnp.asarray(inputs(4))
    gradient = gradient_of_a_loss(made, u)
    state = optax.TraceState(gradient)
    small, carried = compress(made, state, tolerance=1e-9, batch=inputs())
    expected = gradient_of_a_loss(small, u)
    for x, y in zip(jax.tree.leaves(carried.trace), jax.tree.leaves(expected), strict=True):
        cosine = np.sum(x * y) / np.sqrt(np.sum(np.square(x)) * np.sum(np.square(y)))
        assert cosine > 0.99


@pytest.mark.parametrize("tied", [False, True])
def test_a_change_of_order_and_scale_carries_gradients_exactly(tied):
    made, u = layer(tied), jnp.asarray(inputs(4))
    V = (np.eye(N) * np.linspace(0.5, 2, N))[:, ::-1]
    basis = SharedBasis(V[None], np.linalg.inv(V)[None])
    other = fold(made, basis)
    leaves = dict(enumerate(map(np.asarray, jax.tree.leaves(gradient_of_a_loss(made, u)))))
    carried = FoldedCut(made, other, basis).gradients(leaves)
    expected = jax.tree.leaves(gradient_of_a_loss(other, u))
    for k, x in carried.items():
        np.testing.assert_allclose(x, expected[k], atol=1e-4 * np.abs(expected[k]).max())


def test_layers_of_both_kinds_are_cut_together():
    model = {"lru": LRU.init(D_MODEL, N, key=jax.random.key(1)), "mamba": layer()}
    cut, _ = compress(
        model,
        policy=Ranks(4),
        method=Data(inputs={"['lru']": inputs(), "['mamba']": inputs(2)}),
    )
    assert (cut["lru"].d_state, cut["mamba"].d_state) == (4, 4)


def test_moments_are_those_of_the_states_sample_by_sample():
    made, u = layer(), inputs().astype(np.float64)
    g = np.random.default_rng(7).standard_normal(u.shape)
    moments = state_moments(made, u, g)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), made)
        x, dt, B, _ = (np.asarray(a) for a in jax.vmap(wide.signals)(jnp.asarray(u)))
    A, d = moments.A, made.d_inner
    h, P = np.zeros((SEQUENCES, d, N)), np.zeros((d, N, N))
    for k in range(LENGTH):
        h = np.exp(dt[:, k, :, None] * A) * h + (dt * x)[:, k, :, None] * B[:, k]
        P += np.einsum("bdn,bdm->dnm", h, h)
    np.testing.assert_allclose(moments.P, P / (SEQUENCES * LENGTH), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("given", [True, False], ids=["gradients", "without"])
def test_padding_weighs_nothing(given):
    """Moments of padded sequences are those of the sequences, each sample counting once."""
    made, u, lengths = layer(), inputs(), np.array([LENGTH, 17, 1])
    g = np.random.default_rng(7).standard_normal(u.shape) if given else None
    together = state_moments(made, u, g, lengths)
    alone = [
        state_moments(made, u[[k], :n], None if g is None else g[[k], :n])
        for k, n in enumerate(lengths)
    ]
    for name in "PQ" if given else "P":  # without, outputs are weighed by random numbers
        sums = [n * getattr(each, name) for each, n in zip(alone, lengths, strict=True)]
        expected = sum(sums) / lengths.sum()
        np.testing.assert_allclose(getattr(together, name), expected, atol=1e-12 * expected.max())


def test_parts_count_every_sample_once_where_there_are_few():
    counted = sum(part.counts.sum() for part in parts(inputs(), None, 12 * N))
    assert counted == SEQUENCES * LENGTH
    lengths = np.array([LENGTH, 17, 1])
    counted = sum(part.counts.sum() for part in parts(inputs(), None, 12 * N, lengths))
    assert counted == lengths.sum()


def test_a_large_layer_is_cut_on_few_sequences_at_a_time(monkeypatch):
    """In less memory, to the same numbers."""
    made, u, g, lengths = layer(), inputs(), inputs(2), np.array([LENGTH, 17, 9])

    def found():
        method = Data(inputs={"": u}, gradients={"": g}, lengths=lengths)
        small, _ = compress(made, policy=Ranks(N // 2), method=method)
        return jax.tree.leaves((small, contributions(made, u, g, lengths)))

    together = found()
    monkeypatch.setattr(moments, "SIGNALS_AT_ONCE", 9 * LENGTH * made.d_inner)
    (part,) = parts(u, g, 12 * N, lengths)
    assert [len(piece.u) for piece in part.pieces(made.d_inner)] == [8, 8]
    for one, other in zip(together, found(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-6 * np.abs(one).max())


def layer2(groups: int = 2) -> Mamba2:
    key = jax.random.key(3)
    return Mamba2.init(D_MODEL, N, key=key, headdim=3, n_groups=groups, chunk_size=8)


def test_mamba2_keeps_the_states_that_work():
    """States whose B or C is silent are the ones that go, in each group its own."""
    made = layer2()
    first = made.d_inner + 2 * N  # of the channels of the convolution, those of C
    dead = np.concatenate([np.arange(1, N, 2), N + np.arange(0, N, 2)])
    weight, bias = np.array(made.conv1d.weight), np.array(made.conv1d.bias)
    weight[first + dead], bias[first + dead] = 0, 0
    made = eqx.tree_at(
        lambda m: (m.conv1d.weight, m.conv1d.bias), made, (jnp.asarray(weight), jnp.asarray(bias))
    )
    small, _ = compress(made, policy=Ranks(N // 2), batch=inputs())
    like = Mamba2.init(D_MODEL, N // 2, key=jax.random.key(0), headdim=3, n_groups=2, chunk_size=8)
    assert jax.tree.structure(small) == jax.tree.structure(like)
    assert [x.shape for x in jax.tree.leaves(small)] == [x.shape for x in jax.tree.leaves(like)]
    expected = outputs(made, inputs(2))
    np.testing.assert_allclose(outputs(small, inputs(2)), expected, atol=1e-5 * expected.std())


def test_mamba2_carries_its_moments():
    made, u = layer2(), jnp.asarray(inputs(4))
    gradient = gradient_of_a_loss(made, u)
    state = optax.TraceState(gradient)
    small, carried = compress(made, state, policy=Ranks(N // 2), batch=inputs())
    assert jax.tree.structure(carried.trace) == jax.tree.structure(
        eqx.filter(small, eqx.is_inexact_array)
    )


@pytest.mark.parametrize("made", [layer(), layer2()], ids=["mamba", "mamba2"])
def test_stand_ins_average_what_drives_the_states(made):
    u, g = inputs(), inputs(8)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), made)
        x, dt, B, C = (np.asarray(a) for a in jax.vmap(wide.signals)(jnp.asarray(u, jnp.float64)))
    d = x.shape[-1]
    B, C = (np.repeat(a, d // a.shape[2], axis=2) for a in (B, C))
    mean = to_lti(made, u, kind="mean")
    A = np.asarray(made.eigenvalues, np.float64)
    close = {"rtol": 1e-5, "atol": 1e-9}
    decay = np.mean(np.exp(dt[..., None] * A), axis=(0, 1))
    np.testing.assert_allclose(np.exp(mean.log_lam), decay, **close)
    np.testing.assert_allclose(mean.B[..., 0], np.mean(dt[..., None] * B, axis=(0, 1)), **close)
    np.testing.assert_allclose(mean.C[:, 0], np.mean(C, axis=(0, 1)), **close)
    moments = to_lti(made, u, g)
    into = np.einsum("bld,bldn,bldm->dnm", (dt * x) ** 2, B, B) / (SEQUENCES * LENGTH)
    np.testing.assert_allclose(moments.B @ np.swapaxes(moments.B, 1, 2), into, **close)
    P, Q = moments.gramians()
    lti = moments.lti(2)
    lam = np.exp(lti.log_lam.real)
    np.testing.assert_allclose(P[2] - lam[:, None] * P[2] * lam, into[2], **close)
    assert Q.shape == P.shape


def test_stand_ins_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"`kind` must be one of .*got 'median'"):
        to_lti(layer(), inputs(), kind="median")
