"""The pendulum: its physics, its pictures and its times."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import data.builtin.pendulum.simulation
from data import PendulumConfig, load_task
from data.builtin.pendulum.simulation import draw, observe, simulate, visibility

SMALL = PendulumConfig(train=60, validation=10, test=20, samples=30)


def test_the_undisturbed_pendulum_obeys_its_equation(monkeypatch):
    monkeypatch.setattr(data.builtin.pendulum.simulation, "_DISTURBANCE", 0.0)
    angles, velocities = simulate(5, 0, 0)
    for angle, velocity in zip(angles, velocities, strict=True):
        exact = solve_ivp(
            lambda t, s: [s[1], -3 * 9.81 * np.sin(s[0]) - 0.1 * s[1]],
            (0, 0.99),
            [angle[0], 0],
            t_eval=np.arange(100) * 0.01,
            rtol=1e-9,
        ).y
        np.testing.assert_allclose(angle, exact[0], atol=2e-3)
        np.testing.assert_allclose(velocity, exact[1], atol=2e-2)


def test_disturbances_are_as_large_as_published():
    angles, velocities = simulate(300, 1, 0)
    assert angles.shape == velocities.shape == (300, 100)
    assert np.abs(angles[:, 0]).max() <= np.pi
    assert abs(angles[:, 0].std() - 2 * np.pi / 12**0.5) < 0.15
    assert not velocities[:, 0].any()
    pull = -3 * 9.81 * np.sin(angles) - 0.1 * velocities
    kicks = np.diff(velocities) - 0.005 * (pull[:, 1:] + pull[:, :-1])
    assert abs(kicks.std() - 0.1) < 0.003
    assert abs(kicks.mean()) < 0.003
    together = np.corrcoef(kicks[:, :-1].ravel(), kicks[:, 1:].ravel())[0, 1]
    assert abs(together) < 0.03


def test_a_pendulum_does_not_depend_on_how_many_there_are():
    few, many = simulate(3, 0, 0)[0], simulate(260, 0, 0)[0]
    assert np.array_equal(few, many[:3])
    assert len(np.unique(many[:, 0])) == 260  # in a second chunk others


@pytest.mark.parametrize("angle", np.linspace(-np.pi, np.pi, 9))
def test_the_rod_points_where_the_angle_says(angle):
    picture = draw(np.array(angle))
    rows, columns = np.indices((24, 24)) + 0.5 - 12
    x, y = ((picture * where).sum() / picture.sum() for where in (columns, rows))
    assert np.hypot(x, y) == pytest.approx(55 / 128 * 24 / 2, abs=0.3)
    np.testing.assert_allclose([x, y] / np.hypot(x, y), [np.sin(angle), np.cos(angle)], atol=0.05)


def test_pictures_are_clear_at_first_and_noisy_now_and_then():
    clear = visibility(500, np.random.default_rng(0))
    assert (clear[:, :5] == 1).all()
    later = clear[:, 20:]
    assert 0.1 < (later == 0).mean() < 0.3
    assert 0.1 < (later == 1).mean() < 0.3
    assert np.abs(np.diff(clear[:, 5:])).max() <= 0.2 / 0.5 + 1e-6


def test_times_are_irregular_and_add_up():
    angles = np.linspace(-3, 3, 100, dtype=np.float32)[None].repeat(40, axis=0)
    seen = observe(angles, 50, np.random.default_rng(0))
    steps = np.cumsum(seen.intervals, axis=1) * 2
    instants = np.rint(steps).astype(int)
    np.testing.assert_allclose(steps, instants, atol=1e-3)
    assert (np.diff(instants) >= 1).all()
    assert set(np.diff(instants).ravel()) > {1, 2, 3}
    assert abs(seen.intervals.mean() - 1) < 0.05
    shown = np.arctan2(seen.targets[..., 0], seen.targets[..., 1])
    # angles grow by 6/99 from one instant to the next
    np.testing.assert_allclose(np.diff(shown), np.diff(instants) * 6 / 99, atol=1e-4)


def test_the_task():
    heard = []
    task = load_task("pendulum", SMALL, progress=lambda *a: heard.append(a))
    assert heard == [(90, 90, "writing pictures of pendulums")]
    assert (task.kind, task.length, task.input_size, task.outputs) == ("regression", 30, 576, 2)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 60,
        "validation": 10,
        "test": 20,
    }
    batch = task.splits["train"].take(np.arange(4))
    assert batch.inputs.shape == (4, 30, 576)
    assert 0 <= batch.inputs.min() < batch.inputs.max() <= 1
    np.testing.assert_allclose((batch.labels**2).sum(-1), 1, rtol=1e-5)
    assert batch.intervals is not None
    assert task.baselines["mean"] > 0.2
    first = [task.splits[name].labels[0, 0, 0] for name in task.splits]
    assert len(set(first)) == 3


def test_the_seed_decides_alone(tmp_path):
    one, again, other = (
        load_task(
            "pendulum",
            PendulumConfig(**dict(vars(SMALL), seed=seed)),
            cache_dir=tmp_path / str(number),
        ).splits["test"]
        for number, seed in enumerate((0, 0, 1))
    )
    assert np.array_equal(one.inputs, again.inputs)
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.labels, other.labels)


def test_there_are_no_files_to_read(tmp_path):
    with pytest.raises(ValueError, match="data_dir must be left out for the task pendulum"):
        load_task("pendulum", data_dir=tmp_path)
