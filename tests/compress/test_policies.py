"""Policies: exact at the edges, composable, and clear about bad arguments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import (
    Alike,
    Energy,
    ErrorBudget,
    Fraction,
    GlobalBudget,
    Horizon,
    Largest,
    LossBudget,
    PerLayer,
    RandomValues,
    Rank,
    Ranks,
    Smallest,
    Tolerance,
)
from compress.plans import AbstractSpectrum
from compress.policies.ranks import above_tie


class Values(AbstractSpectrum):
    """A spectrum that has nothing but values."""

    def __init__(self, sigma):
        self.layer, self.sigma = None, np.asarray(sigma, float)

    @property
    def is_known(self):
        return True

    def raised(self, rank, allowed):
        return rank

    def planned(self, path, rank):
        raise NotImplementedError


def ranks(policy, *sigmas, cut=list):
    return policy.ranks({str(k): Values(sigma) for k, sigma in enumerate(sigmas)}, cut)


SIGMA = np.array([8.0, 4.0, 2.0, 1.0, 1.0])  # sums to 16, exactly


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Tolerance(0), 5),
        (Tolerance(1 / 16), 4),  # the sum of what stays is at its limit: that is enough
        (Tolerance(1 / 16 - 1e-9), 5),
        (Tolerance(0.25), 2),
        (Tolerance(0.99), 1),
        (Energy(0), 5),
        (Energy(2 / 86), 3),
        (Energy(0.3), 1),
        (ErrorBudget(0), 5),
        (ErrorBudget(0.5), 3),  # 2 * (1 + 1) = 0.5 * 8
        (ErrorBudget(0.49), 4),
        (ErrorBudget(100), 1),
        (Rank(3), 3),
        (Rank(9), 5),
        (Fraction(0.6), 3),
        (Fraction(0.61), 4),
        (Fraction(1), 5),
        (Fraction(0.001), 1),
        (Rank(3).rounded(4), 4),
        (Rank(5).rounded(4), 5),
        (Rank(4).rounded(4), 4),
        (Largest((Tolerance(0.99), Rank(2))), 2),
        (Smallest((Rank(4), Fraction(0.4))), 2),
        (Largest((Rank(4), Fraction(0.4))), 4),
        (Tolerance(0.25).rounded(3).rounded(2), 4),
    ],
)
def test_policies_on_known_values(policy, expected):
    assert policy.round_up(policy.rank(SIGMA), len(SIGMA)) == expected


def test_ties_are_kept_whole_and_then_rounded():
    assert ranks(PerLayer(lambda _: 4).gated(1), SIGMA) == [5]
    assert ranks(PerLayer(lambda _: 3).gated(1), SIGMA) == [3]
    assert ranks(Tolerance(1 / 16).rounded(2).gated(1), SIGMA) == [5]
    assert ranks(Rank(4), SIGMA) == [4]


@pytest.mark.parametrize("values", [[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.1] * 10, [1 / 3] * 3])
def test_a_share_that_is_exact_in_decimals_is_exact(values):
    sigma = np.array(values)
    dropped = values[-1] / sum(values)
    assert Tolerance(dropped).rank(sigma) == len(sigma) - 1


def test_rounding_does_not_hold_states_at_tolerance_zero():
    sigma = np.array([0.1, 0.1, 0.1, 1e-30, 0.0, 0.0])
    assert Tolerance(0).rank(sigma) == 4
    assert Tolerance(1e-12).rank(sigma) == 3


@pytest.mark.parametrize("policy", [Tolerance(0), Tolerance(0.5), Energy(0), ErrorBudget(0)])
def test_a_layer_of_zeros_keeps_one_state(policy):
    assert ranks(policy, np.zeros(7)) == [1]


def test_noise_is_no_tie():
    sigma = np.array([1.0, 0.5, 1e-17, 1e-17, 1e-17])
    assert above_tie(3, sigma) == 3


def test_a_tie_is_kept_whole_up_to_its_gap():
    sigma = np.array([2.0, 1.0, 1.0 - 1e-9, 1.0 - 2e-9, 0.5])
    assert above_tie(2, sigma) == 4
    assert above_tie(2, sigma, gap=1e-10) == 2


def test_extreme_values_neither_overflow_nor_underflow():
    for scale in (1e-300, 1e300):
        assert Energy(0.3).rank(SIGMA / 16 * scale) == 1
        assert Tolerance(0.25).rank(SIGMA / 16 * scale) == 2


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=40),
    st.floats(0, 0.999),
)
def test_tolerance_keeps_the_fewest_that_suffice(values, tau):
    sigma = np.sort(np.array(values))[::-1]
    r = Tolerance(tau).rank(sigma)
    enough = (1 - tau) * sigma.sum()
    assert sigma[:r].sum() >= enough * (1 - 1e-12)
    assert r == 1 or sigma[: r - 1].sum() < enough * (1 + 1e-12)
    assert Tolerance(tau).rank(sigma * 1e-3) == r


@pytest.mark.parametrize(
    ("states", "expected"), [(2, [1, 1]), (3, [2, 1]), (4, [2, 2]), (6, [3, 3]), (99, [5, 4])]
)
def test_a_global_budget_goes_where_it_matters(states, expected):
    flat = 100 * np.array([1.0, 0.4, 0.3, 0.0])  # gain does not count, shares do
    assert GlobalBudget(states).choose([SIGMA, flat], list) == expected


def test_a_loss_budget_is_spent_but_not_exceeded():
    def loss(ranks):  # rises by 2^-r for each layer cut to rank r
        tried.append(tuple(ranks))
        return 3.0 + sum(2.0**-r for r in ranks)

    sigmas = [2.0 ** -np.arange(20.0), 2.0 ** -np.arange(12.0)]
    for rise in (0.0, 1e-3, 0.1, 10.0):
        tried = []
        ranks = LossBudget(loss, rise, steps=12).choose(sigmas, lambda ranks: ranks)
        before = 3.0 + 2.0**-20 + 2.0**-12
        assert len(tried) <= 13
        assert loss(ranks) <= before + rise
        assert sum(ranks) == 2 or loss([max(1, r - 1) for r in ranks]) > before + rise / 2
    assert ranks == [1, 1]


def test_a_loss_budget_may_end_near_the_fewest_states():
    def loss(ranks):  # 100 states are needed
        tried.append(ranks[0])
        return float(ranks[0] < 100)

    found = {}
    for close in (0.0, 0.1):
        tried = []
        budget = LossBudget(loss, 0.0, steps=16, close=close)
        ranks = budget.choose([0.97 ** np.arange(400.0)], lambda ranks: ranks)
        found[close] = ranks[0], len(tried)
    assert found[0.0][0] == 100
    assert 100 <= found[0.1][0] <= 110
    assert found[0.1][1] < found[0.0][1]


@pytest.mark.parametrize(
    ("rank_now", "before", "gate", "expected"),
    [(94, 100, 0.95, 94), (95, 100, 0.95, 100), (99, 100, 1.0, 99), (100, 100, 1.0, 100)],
)
def test_the_gate_lets_only_worthwhile_cuts_pass(rank_now, before, gate, expected):
    sigma = np.arange(before, 0, -1)
    assert ranks(Rank(rank_now).gated(gate), sigma) == [expected]
    assert ranks(PerLayer(lambda _: rank_now).gated(gate), sigma) == [expected]


def test_policies_are_values():
    assert Tolerance(0.1).rounded(8).gated(0.9) == Tolerance(0.1, multiples=(8,), gate=0.9)
    assert Tolerance() == Tolerance(0.01)
    assert Tolerance(0.1).rounded(8) != Tolerance(0.1)
    assert {Rank(3): 1}[Rank(3)] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tolerance(1.0), r"`tolerance` must be 0 or more and below 1, got 1.0"),
        (lambda: Tolerance(-0.1), r"`tolerance` must be .*, got -0.1"),
        (lambda: Tolerance(float("nan")), r"`tolerance` must be .*, got nan"),
        (lambda: Energy(2), r"`energy` must be .*, got 2"),
        (lambda: ErrorBudget(-1), r"`epsilon` must be 0 or more and finite, got -1"),
        (lambda: Rank(0), r"`rank` must be 1 or more, got 0"),
        (lambda: Fraction(0), r"`share` must be above 0 and at most 1, got 0"),
        (lambda: Rank(1).rounded(0), r"`multiple` must be 1 or more, got 0"),
        (lambda: Smallest(()), r"`policies` must hold one policy or more, got \(\)"),
        (lambda: GlobalBudget(0), r"`states` must be 1 or more, got 0"),
        (lambda: LossBudget(float, -1), r"`rise` must be 0 or more and finite, got -1"),
        (lambda: LossBudget(float, 0, close=1), r"`close` must be at least 0 and below 1, got 1"),
        (
            lambda: GlobalBudget(1).choose([SIGMA, SIGMA], list),
            r"`states` must be 2, the number of layers, or more, got 1",
        ),
        (lambda: Rank(1).gated(0), r"`gate` must be above 0 and at most 1, got 0"),
        (lambda: Rank(1).choose([np.array([])], list), r"`sigma` must have .*, got shape \(0,\)"),
        (
            lambda: Rank(1).choose([np.array([1, np.nan])], list),
            r"`sigma` must be 0 or more, got NaN",
        ),
        (
            lambda: Rank(1).choose([np.array([1, -1.0])], list),
            r"`sigma` must be 0 or more, got NaN, infinity or a negative",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


STRANGE = ["strange", None, [], {}, object(), float("nan"), True, 1 + 2j, np.zeros(3)]
MAKERS = [Tolerance, Energy, ErrorBudget, Rank, Fraction, Smallest, GlobalBudget, Horizon]
MAKERS += [lambda x: LossBudget(float, x), lambda x: Rank(1).gated(x), RandomValues]


@pytest.mark.parametrize("make", MAKERS)
def test_settings_of_another_kind_are_told_in_one_sentence(make):
    for value in STRANGE:
        with pytest.raises(ValueError, match=r"^`\w+` must "):
            make(value)


def test_alike_takes_the_rank_of_the_layer_that_needs_most():
    policy = Alike(Tolerance(0.1))
    assert policy.choose([np.array([1.0, 0.5, 0.4]), np.array([1.0, 0.0])], list) == [3, 2]


def test_ranks_for_each_layer_are_taken_as_they_are():
    assert Ranks(2) == Ranks(2)
    layer = type("Layer", (), {"d_state": 5})()
    spectra = {"a": Values(SIGMA), "b": Values(SIGMA)}
    for spectrum in spectra.values():
        spectrum.layer = layer
    assert Ranks(4).ranks(spectra, list) == [4, 4]  # in the middle of a tie
    assert Ranks([5, 1]).ranks(spectra, list) == [5, 1]
    assert Ranks({"b": 2}).ranks(spectra, list) == [5, 2]
