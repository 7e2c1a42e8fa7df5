"""Balanced states other than the leading ones."""

import jax
import numpy as np
import pytest

from compress import RandomValues, Rank, SmallestValues, WhiteNoise, hinf_error, plan
from compress.linear.selection import random_values, smallest_values
from zoo import LRU


@pytest.fixture(scope="module")
def layer():
    return LRU.init(d_model=3, d_state=12, key=jax.random.key(0))


def cut(layer, method):
    (row,) = plan(layer, policy=Rank(5), method=method).layers
    assert row.cut is not None
    return row


def complex_error(row) -> float:
    """H-infinity error of the complex system, which is what was truncated."""
    return hinf_error(row.cut.before.to_lti(), row.cut.after.to_lti(), form="complex")


@pytest.mark.parametrize("method", [WhiteNoise("complex"), SmallestValues(), RandomValues(3)])
def test_every_choice_is_stable_and_within_twice_the_sum_of_what_is_dropped(layer, method):
    row = cut(layer, method)
    assert row.rank_after == 5
    assert row.cut.after.to_lti().spectral_radius() < 1
    assert row.floor * (1 - 1e-5) <= complex_error(row) <= row.bound * (1 + 1e-5)


def test_the_largest_values_lose_least(layer):
    best = complex_error(cut(layer, WhiteNoise("complex")))
    assert best < complex_error(cut(layer, SmallestValues()))
    assert best < complex_error(cut(layer, RandomValues(0)))


def test_choices_are_what_they_say():
    sigma = np.arange(6, 0, -1.0)
    np.testing.assert_array_equal(smallest_values(sigma, 2), [4, 5])
    np.testing.assert_array_equal(random_values(1)(sigma, 4), random_values(1)(sigma, 4))
    assert len(set(random_values(1)(sigma, 4))) == 4


def test_random_states_follow_from_the_seed_and_the_layer(layer):
    one, same, other = (cut(layer, RandomValues(seed)).cut.after.nu_log for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    first, second = plan((layer, layer), policy=Rank(5), method=RandomValues(1)).layers
    np.testing.assert_array_equal(first.cut.after.nu_log, second.cut.after.nu_log)  # one object
