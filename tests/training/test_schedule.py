import numpy as np
import pytest

from training.settings.config import CompressionConfig, OptimizerConfig
from training.settings.schedule import learning_rate_schedule, rank_at, shrink_steps


def test_cosine_warms_up_for_a_tenth_and_comes_back():
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=1e-3), 1000, factor=0.25)
    rates = np.array([float(schedule(k)) for k in range(1001)])
    assert np.isclose(rates[0], 1e-7)
    assert rates.argmax() == 100
    assert np.isclose(rates[100], 0.25e-3)
    assert np.isclose(rates[50], 0.125e-3, rtol=1e-2)
    assert np.isclose(rates[550], 0.125e-3, rtol=1e-2)
    assert np.isclose(rates[1000], 1e-7, rtol=1e-2)


def test_constant():
    schedule = learning_rate_schedule(OptimizerConfig(schedule="constant"), 1000)
    assert float(schedule(0)) == float(schedule(999)) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({}, 1000, (25, 50, 75, 100)),
        ({"mode": "none"}, 1000, ()),
        ({"shrinks": 1, "window": 0.5}, 10, (5,)),
        ({"shrinks": 3, "window": 1.0}, 9, (3, 6)),
        ({}, 4, ()),
        ({}, 20, (1, 2)),
    ],
)
def test_shrinks_are_equally_spaced_in_the_window(settings, steps, expected):
    assert shrink_steps(CompressionConfig(**settings), steps) == expected


def test_fixed_ranks_fall_geometrically():
    config = CompressionConfig(mode="fixed", rank=32, shrinks=3)
    assert [rank_at(config, k, 3, 256) for k in (1, 2, 3)] == [128, 64, 32]
    assert rank_at(config, 1, 3, 32) == 32


def test_a_warm_up_as_long_as_the_run_leaves_a_step_to_fall():
    schedule = learning_rate_schedule(OptimizerConfig(warmup=0.96), 10)
    assert float(schedule(9)) == pytest.approx(1e-3)
