"""Hankel singular values matched between two systems, and how far they can move."""

import numpy as np
import pytest

from compress import hankel_singular_values
from compress.tracking import match, weyl_bound
from zoo import DiagonalLTI


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
    with pytest.raises(ValueError, match="after is unstable"):
        weyl_bound(system(0), unstable)
