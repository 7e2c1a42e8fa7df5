"""Rank policies: exact at the edges, composable, and clear about bad arguments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import policies as rank

SIGMA = np.array([8.0, 4.0, 2.0, 1.0, 1.0])  # sums to 16, exactly


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (rank.tolerance(0), 5),
        (rank.tolerance(1 / 16), 4),  # the sum of what stays is at its limit: that is enough
        (rank.tolerance(1 / 16 - 1e-9), 5),
        (rank.tolerance(0.25), 2),
        (rank.tolerance(0.99), 1),
        (rank.energy(0), 5),
        (rank.energy(2 / 86), 3),
        (rank.energy(0.3), 1),
        (rank.error_budget(0), 5),
        (rank.error_budget(0.5), 3),  # 2 * (1 + 1) = 0.5 * 8
        (rank.error_budget(0.49), 4),
        (rank.error_budget(100), 1),
        (rank.fixed(3), 3),
        (rank.fixed(9), 5),
        (rank.fraction(0.6), 3),
        (rank.fraction(0.61), 4),
        (rank.fraction(1), 5),
        (rank.fraction(0.001), 1),
        (rank.round_up(rank.fixed(3), 4), 4),
        (rank.round_up(rank.fixed(5), 4), 5),
        (rank.round_up(rank.fixed(4), 4), 4),
        (rank.at_least(rank.tolerance(0.99), 2), 2),
        (rank.smallest(rank.fixed(4), rank.fraction(0.4)), 2),
        (rank.largest(rank.fixed(4), rank.fraction(0.4)), 4),
        (rank.keep_ties(rank.fixed(4)), 5),
        (rank.keep_ties(rank.fixed(3)), 3),
        (rank.round_up(rank.keep_ties(rank.tolerance(1 / 16)), 2), 5),
        (rank.round_up(rank.round_up(rank.tolerance(0.25), 3), 2), 4),
    ],
)
def test_policies_on_known_values(policy, expected):
    assert policy(SIGMA) == expected


@pytest.mark.parametrize("values", [[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.1] * 10, [1 / 3] * 3])
def test_a_share_that_is_exact_in_decimals_is_exact(values):
    sigma = np.array(values)
    dropped = values[-1] / sum(values)
    assert rank.tolerance(dropped)(sigma) == len(sigma) - 1


def test_rounding_does_not_hold_states_at_tolerance_zero():
    sigma = np.array([0.1, 0.1, 0.1, 1e-30, 0.0, 0.0])
    assert rank.tolerance(0)(sigma) == 4
    assert rank.tolerance(1e-12)(sigma) == 3


@pytest.mark.parametrize(
    "policy", [rank.tolerance(0), rank.tolerance(0.5), rank.energy(0), rank.error_budget(0)]
)
def test_a_layer_of_zeros_keeps_one_state(policy):
    assert rank.keep_ties(policy)(np.zeros(7)) == 1


def test_noise_is_no_tie():
    sigma = np.array([1.0, 0.5, 1e-17, 1e-17, 1e-17])
    assert rank.keep_ties(rank.fixed(3))(sigma) == 3


def test_a_tie_is_kept_whole_up_to_its_gap():
    sigma = np.array([2.0, 1.0, 1.0 - 1e-9, 1.0 - 2e-9, 0.5])
    assert rank.keep_ties(rank.fixed(2))(sigma) == 4
    assert rank.keep_ties(rank.fixed(2), gap=1e-10)(sigma) == 2


def test_extreme_values_neither_overflow_nor_underflow():
    for scale in (1e-300, 1e300):
        assert rank.energy(0.3)(SIGMA / 16 * scale) == 1
        assert rank.tolerance(0.25)(SIGMA / 16 * scale) == 2


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=40),
    st.floats(0, 0.999),
)
def test_tolerance_keeps_the_fewest_that_suffice(values, tau):
    sigma = np.sort(np.array(values))[::-1]
    r = rank.tolerance(tau)(sigma)
    enough = (1 - tau) * sigma.sum()
    assert sigma[:r].sum() >= enough * (1 - 1e-12)
    assert r == 1 or sigma[: r - 1].sum() < enough * (1 + 1e-12)
    assert rank.tolerance(tau)(sigma * 1e-3) == r


@pytest.mark.parametrize(
    ("states", "expected"), [(2, [1, 1]), (3, [2, 1]), (4, [2, 2]), (6, [3, 3]), (99, [5, 4])]
)
def test_a_global_budget_goes_where_it_matters(states, expected):
    flat = 100 * np.array([1.0, 0.4, 0.3, 0.0])  # gain does not count, shares do
    assert rank.global_budget(states).ranks([SIGMA, flat], list) == expected


def test_a_loss_budget_is_spent_but_not_exceeded():
    def loss(ranks):  # rises by 2^-r for each layer cut to rank r
        tried.append(tuple(ranks))
        return 3.0 + sum(2.0**-r for r in ranks)

    sigmas = [2.0 ** -np.arange(20.0), 2.0 ** -np.arange(12.0)]
    for rise in (0.0, 1e-3, 0.1, 10.0):
        tried = []
        ranks = rank.loss_budget(loss, rise, steps=12).ranks(sigmas, lambda ranks: ranks)
        before = 3.0 + 2.0**-20 + 2.0**-12
        assert len(tried) <= 13
        assert loss(ranks) <= before + rise
        assert sum(ranks) == 2 or loss([max(1, r - 1) for r in ranks]) > before + rise / 2
    assert ranks == [1, 1]


@pytest.mark.parametrize(
    ("rank_now", "before", "gate", "expected"),
    [(94, 100, 0.95, 94), (95, 100, 0.95, 100), (99, 100, 1.0, 99), (100, 100, 1.0, 100)],
)
def test_the_gate_lets_only_worthwhile_cuts_pass(rank_now, before, gate, expected):
    assert rank.gated(rank_now, before, gate) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rank.tolerance(1.0), r"tolerance=1.0, allowed: 0 or more, below 1"),
        (lambda: rank.tolerance(-0.1), r"tolerance=-0.1, allowed"),
        (lambda: rank.tolerance(float("nan")), r"tolerance=nan, allowed"),
        (lambda: rank.energy(2), r"energy=2, allowed"),
        (lambda: rank.error_budget(-1), r"epsilon=-1, allowed: 0 or more"),
        (lambda: rank.fixed(0), r"rank=0, allowed: 1 or more"),
        (lambda: rank.fraction(0), r"share=0, allowed: above 0, at most 1"),
        (lambda: rank.round_up(rank.fixed(1), 0), r"multiple=0, allowed: 1 or more"),
        (lambda: rank.smallest(), r"policies=\(\), allowed: one policy or more"),
        (lambda: rank.global_budget(0), r"states=0, allowed: 1 or more"),
        (lambda: rank.loss_budget(float, -1), r"rise=-1, allowed: 0 or more, finite"),
        (lambda: rank.global_budget(1).ranks([SIGMA, SIGMA], list), r"states=1, allowed: 2, the"),
        (lambda: rank.gated(1, 2, 0), r"gate=0, allowed: above 0, at most 1"),
        (lambda: rank.fixed(1)(np.array([])), r"sigma has shape \(0,\)"),
        (lambda: rank.fixed(1)(np.array([1, np.nan])), r"sigma holds NaN"),
        (lambda: rank.fixed(1)(np.array([1, -1.0])), r"sigma holds NaN, infinity or a negative"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_alike_takes_the_rank_of_the_layer_that_needs_most():
    policy = rank.alike(rank.tolerance(0.1))
    assert policy.ranks([np.array([1.0, 0.5, 0.4]), np.array([1.0, 0.0])], lambda _: None) == [3, 2]
