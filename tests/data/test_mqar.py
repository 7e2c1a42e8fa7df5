"""Recall: keys with values, and the keys once more."""

from dataclasses import replace

import numpy as np
import pytest

from data import MQARConfig, load_task
from data.builtin.mqar.sequences import NOTHING, draw

SMALL = MQARConfig(pairs=5, length=40, vocabulary=32, train=60, validation=10, test=20)


def test_each_key_is_asked_for_once_and_the_answer_is_its_value():
    tokens, values = draw(200, (5, 5), 40, 32, 0.01, np.random.default_rng(0))
    for row, asked in zip(tokens, values, strict=True):
        pairs = dict(zip(row[0:10:2].tolist(), row[1:10:2].tolist(), strict=True))
        assert len(pairs) == 5
        assert len(set(pairs.values())) == 5
        assert all(1 <= key < 16 <= value < 32 for key, value in pairs.items())
        (places,) = np.nonzero(asked != NOTHING)
        assert places.min() >= 10
        assert {row[k]: asked[k] for k in places} == pairs
        assert len(places) == 5


def test_numbers_of_pairs_of_a_range_are_drawn_evenly():
    tokens, values = draw(6_000, (2, 4), 24, 32, 0.01, np.random.default_rng(2))
    counts = np.sum(values != NOTHING, axis=1)
    np.testing.assert_allclose(np.bincount(counts)[2:] / 6_000, 1 / 3, atol=0.03)
    for row, asked, number in zip(tokens, values, counts, strict=True):
        pairs = dict(zip(row[0 : 2 * number : 2].tolist(), row[1 : 2 * number : 2], strict=True))
        (places,) = np.nonzero(asked != NOTHING)
        assert places.min() >= 2 * number
        assert {row[k]: asked[k] for k in places} == pairs


def test_only_sequences_for_training_have_fewer_pairs():
    splits = load_task("mqar", replace(SMALL, fewest=1)).splits
    counts = {name: np.sum(split.labels != NOTHING, axis=1) for name, split in splits.items()}
    assert set(counts["train"]) == {1, 2, 3, 4, 5}
    assert set(counts["validation"]) == set(counts["test"]) == {5}
    whole = load_task("mqar", SMALL).splits["test"]
    assert np.array_equal(whole.inputs, splits["test"].inputs)


@pytest.mark.parametrize("power", [0.01, 1.0])
def test_gaps_follow_the_power_law(power):
    _, values = draw(20_000, (1, 1), 24, 8, power, np.random.default_rng(1))
    counts = np.bincount(np.nonzero(values != NOTHING)[1], minlength=24)[2:]
    assert not counts[1::2].any()
    law = np.arange(1, 12, dtype=float) ** (power - 1)
    np.testing.assert_allclose(counts[::2] / 20_000, law / law.sum(), atol=0.015)


def test_the_task():
    heard = []
    task = load_task("mqar", SMALL, progress=lambda *a: heard.append(a))
    assert heard == [(90, 90, "writing pairs and queries")]
    assert (task.kind, task.length, task.input_size, task.outputs) == ("recall", 40, 32, 32)
    assert [len(split) for split in task.splits.values()] == [60, 10, 20]
    batch = task.splits["train"].take(np.arange(4))
    assert batch.inputs.shape == batch.labels.shape == (4, 40)
    np.testing.assert_allclose(task.baselines["latest value"], 0.2)
    firsts = {tuple(split.inputs[0]) for split in task.splits.values()}
    assert len(firsts) == 3
    assert task.symbols is not None
    assert (task.symbols[3], task.symbols[19]) == ("k3 ", "v3 ")


def test_the_seed_decides_alone(tmp_path):
    one, again, other = (
        load_task("mqar", replace(SMALL, seed=seed), cache_dir=tmp_path / str(k)).splits["test"]
        for k, seed in enumerate((0, 0, 1))
    )
    assert np.array_equal(one.inputs, again.inputs)
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length": 38}, "length must be even and at least 40, .* got 38"),
        ({"length": 41}, "length must be even and at least 40, .* got 41"),
        ({"vocabulary": 20}, "vocabulary must be even and at least 22, .* got 20"),
        ({"pairs": 0}, "pairs must be at least 1, got 0"),
        ({"fewest": 0}, "fewest must be between 1 and pairs = 10, or none, got 0"),
        ({"fewest": 11}, "fewest must be between 1 and pairs = 10, or none, got 11"),
        ({"power": 0.0}, "power must be above 0, got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MQARConfig(**{"pairs": 10, "length": 40, "vocabulary": 32, **wrong})


def test_there_are_no_files_to_read(tmp_path):
    with pytest.raises(ValueError, match="data_dir must be left out for the task mqar"):
        load_task("mqar", data_dir=tmp_path)
