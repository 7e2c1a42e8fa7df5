"""Hankel singular values matched between two systems, and how far they can move."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import Data, Rank, hankel_singular_values, plan
from compress.analysis.tracking import match, values, weyl_bound
from compress.selective.operator import SampledStates, sampled_states
from zoo import DiagonalLTI, Mamba


def system(seed: int, n: int = 6, m: int = 2) -> DiagonalLTI:
    rng = np.random.default_rng(seed)
    return DiagonalLTI(
        log_lam=-rng.uniform(0.01, 0.5, n) + 1j * rng.uniform(0.1, 3.0, n),
        B=rng.normal(size=(n, m)) + 1j * rng.normal(size=(n, m)),
        C=rng.normal(size=(m, n)) + 1j * rng.normal(size=(m, n)),
        D=np.zeros(m),
    )


def moved(lti: DiagonalLTI, by: float, seed: int = 5) -> DiagonalLTI:
    rng = np.random.default_rng(seed)
    return DiagonalLTI(
        log_lam=lti.log_lam * (1 + by * rng.uniform(-1, 1, lti.d_state)),
        B=lti.B + by * rng.normal(size=lti.B.shape),
        C=lti.C + by * rng.normal(size=lti.C.shape),
        D=lti.D,
    )


FORMS = pytest.mark.parametrize("form", ["complex", "real"])


@FORMS
@pytest.mark.parametrize("by", [1e-3, 0.1, 1.0])
def test_values_move_by_no_more_than_weyls_bound(form, by):
    before = system(0)
    after = moved(before, by)
    moves = hankel_singular_values(before, form=form) - hankel_singular_values(after, form=form)
    bound = weyl_bound(before, after, form=form)
    assert np.max(np.abs(moves)) <= bound * (1 + 1e-9)
    assert bound <= np.max(hankel_singular_values(before, form=form)) + np.max(
        hankel_singular_values(after, form=form)
    )


@FORMS
def test_the_bound_to_itself_is_zero(form):
    lti = system(1)
    assert weyl_bound(lti, lti, form=form) <= 1e-7 * hankel_singular_values(lti, form=form)[0]


@FORMS
def test_a_system_matches_itself_in_any_coordinates(form):
    lti = system(2)
    rng = np.random.default_rng(3)
    order, scale = rng.permutation(lti.d_state), rng.uniform(0.1, 10, lti.d_state)
    same = DiagonalLTI(
        lti.log_lam[order],
        (lti.B * scale[:, None])[order],
        (lti.C / scale)[:, order],
        lti.D,
    )
    found = match(lti, same, form=form)
    np.testing.assert_allclose(found.overlap, 1, atol=1e-6)
    np.testing.assert_array_equal(found.rank, np.arange(len(found.rank)))
    assert found.crossings() == 0


def test_two_subsystems_that_overtake_each_other_cross_once():
    """Two decoupled modes on channels of their own: the weaker becomes the stronger."""

    def two(first: float, second: float) -> DiagonalLTI:
        return DiagonalLTI(
            log_lam=np.array([-0.1 + 0.5j, -0.2 + 2.0j]),
            B=np.eye(2, dtype=complex),
            C=np.diag([first, second]).astype(complex),
            D=np.zeros(2),
        )

    found = match(two(2.0, 1.0), two(1.0, 4.0), form="complex")
    np.testing.assert_array_equal(found.rank, [1, 0])
    assert found.crossings() == 1
    assert found.after[0] < found.before[0]
    assert found.after[1] > found.before[1]


def test_systems_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="inputs, outputs"):
        match(system(0), system(0, m=3))
    unstable = system(0)
    unstable = DiagonalLTI(unstable.log_lam + 1.0, unstable.B, unstable.C, unstable.D)
    with pytest.raises(ValueError, match="after must be stable"):
        weyl_bound(system(0), unstable)


SEQUENCES, LENGTH, D_MODEL, STATES = 3, 24, 4, 6
ALL = SEQUENCES * LENGTH * 2 * D_MODEL


def selective(by: float = 0.0, d_state: int = STATES) -> Mamba:
    layer = Mamba.init(D_MODEL, d_state, key=jax.random.key(0), dt_rank=2)
    weight = layer.x_proj.weight
    noise = jax.random.normal(jax.random.key(1), weight.shape) * jnp.std(weight)
    return eqx.tree_at(lambda m: m.x_proj.weight, layer, weight + by * noise)


def data(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((SEQUENCES, LENGTH, D_MODEL))


def states_of(layer: Mamba, columns: int = ALL, **lengths) -> SampledStates:
    return sampled_states(layer, data(0), data(1), columns=columns, **lengths)


def test_the_values_of_all_samples_are_those_that_a_selective_layer_is_weighed_by():
    layer = selective()
    states = states_of(layer)
    assert states.H.shape == (1, STATES, ALL)
    planned = plan(layer, policy=Rank(STATES), method=Data(inputs=[data(0)], gradients=[data(1)]))
    np.testing.assert_allclose(values(states), planned.layers[0].sigma, rtol=1e-6)


def test_padding_is_no_sample():
    lengths = np.array([LENGTH, 5, 1])
    states = states_of(selective(), lengths=lengths)
    assert states.H.shape[2] == np.sum(lengths) * 2 * D_MODEL
    padded = [x * (np.arange(LENGTH) < lengths[:, None])[..., None] for x in (data(0), data(1))]
    weighed = {"inputs": padded[:1], "gradients": padded[1:], "lengths": lengths}
    planned = plan(selective(), policy=Rank(STATES), method=Data(**weighed))
    np.testing.assert_allclose(values(states), planned.layers[0].sigma, rtol=1e-6)


@pytest.mark.parametrize("columns", [ALL, 64])
@pytest.mark.parametrize("by", [1e-3, 0.1, 1.0])
def test_values_of_a_selective_layer_move_by_no_more_than_weyls_bound(by, columns):
    before, after = (states_of(selective(change), columns) for change in (0.0, by))
    sigma = values(before)
    bound = weyl_bound(before, after)
    assert np.max(np.abs(sigma - values(after))) <= bound * (1 + 1e-9)
    gap = np.linalg.norm(before.M[0].T @ before.H[0] - after.M[0].T @ after.H[0], 2)
    np.testing.assert_allclose(bound, gap, rtol=1e-9)
    assert weyl_bound(before, before) <= 1e-9 * sigma[0]


def test_a_selective_layer_matches_itself_in_any_order_of_its_states():
    states = states_of(selective())
    order, scale = np.array([3, 1, 0, 2, 5, 4]), np.array([1.0, 4.0, 0.5, 2.0, 3.0, 0.1])[:, None]
    same = SampledStates((states.H[0] * scale)[order][None], (states.M[0] / scale)[order][None])
    found = match(states, same)
    np.testing.assert_allclose(found.overlap, 1, atol=1e-6)
    np.testing.assert_array_equal(found.rank, np.arange(len(found.rank)))
    smaller = states_of(selective(d_state=STATES - 2))
    assert len(match(states, smaller).before) == len(values(smaller))


def test_groups_are_operators_of_their_own():
    one, other = (states_of(selective(by)) for by in (0.0, 1.0))
    both = SampledStates(np.concatenate([one.H, other.H]), np.concatenate([one.M, other.M]))
    expected = np.sort(np.concatenate([values(one), values(other)]))[::-1]
    np.testing.assert_allclose(values(both), expected, rtol=1e-9)


def test_kinds_and_samples_that_do_not_belong_together_are_refused():
    states = states_of(selective())
    with pytest.raises(ValueError, match="of one kind, got DiagonalLTI and SampledStates"):
        match(system(0), states)
    with pytest.raises(ValueError, match=r"`after` must have \(groups, samples\) = \(1, 576\)"):
        weyl_bound(states, states_of(selective(), 64))
