"""Balanced states other than the leading ones."""

import jax
import numpy as np
import pytest

from compress import hinf_error, plan
from compress.linear.selection import random_values, smallest_values
from zoo import LRU


@pytest.fixture(scope="module")
def layer():
    return LRU.init(d_model=3, d_state=12, key=jax.random.key(0))


def cut(layer, select):
    (row,) = plan(layer, ranks=5, form="complex", select=select).layers
    assert row.cut is not None
    return row


def complex_error(row) -> float:
    """H-infinity error of the complex system, which is what was truncated."""
    return hinf_error(row.cut.before.to_lti(), row.cut.after.to_lti(), form="complex")


@pytest.mark.parametrize("select", [None, smallest_values, random_values(3)])
def test_every_choice_is_stable_and_within_twice_the_sum_of_what_is_dropped(layer, select):
    row = cut(layer, select)
    assert row.rank_after == 5
    assert row.cut.after.to_lti().spectral_radius() < 1
    assert row.floor * (1 - 1e-5) <= complex_error(row) <= row.bound * (1 + 1e-5)


def test_the_largest_values_lose_least(layer):
    best = complex_error(cut(layer, None))
    assert best < complex_error(cut(layer, smallest_values))
    assert best < complex_error(cut(layer, random_values(0)))


def test_choices_are_what_they_say():
    sigma = np.arange(6, 0, -1.0)
    np.testing.assert_array_equal(smallest_values(sigma, 2), [4, 5])
    np.testing.assert_array_equal(random_values(1)(sigma, 4), random_values(1)(sigma, 4))
    assert len(set(random_values(1)(sigma, 4))) == 4


def test_the_real_map_and_data_are_refused(layer):
    with pytest.raises(ValueError, match="select"):
        plan(layer, ranks=5, form="real", select=smallest_values)
    with pytest.raises(ValueError, match="select"):
        plan(layer, ranks=5, form="complex", batch=np.zeros((2, 9, 3)), select=smallest_values)
