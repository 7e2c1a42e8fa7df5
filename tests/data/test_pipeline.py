"""Laws of the loader: what a run sees depends on (seed, step) alone, and nothing is lost."""

import numpy as np
import pytest

from data import Split, Task, eval_batches, train_batch


def numbered(n: int, kind: str = "real") -> Split:
    """Samples that carry their own number."""
    rows = np.arange(n, dtype=np.int32)
    if kind == "tokens":
        return Split(np.repeat(rows[:, None], 3, axis=1), rows)
    return Split(np.repeat(rows[:, None, None], 3, axis=1).astype(np.float32), rows)


@pytest.mark.parametrize(("n", "batch_size"), [(10, 5), (10, 3), (7, 7), (11, 4), (5, 1)])
def test_every_epoch_is_a_permutation(n, batch_size):
    steps = 3 * n  # a whole number of epochs, whatever the batch size
    inputs, labels = train_batch(numbered(n), batch_size, 3, 0, count=steps)
    assert inputs.shape == (steps, batch_size, 3, 1)
    assert np.array_equal(inputs[..., 0, 0], labels)
    epochs = labels.reshape(-1, n)
    assert (np.sort(epochs, axis=1) == np.arange(n)).all()
    if n > 5:
        assert len(np.unique(epochs, axis=0)) > 1


@pytest.mark.parametrize("kind", ["real", "tokens"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_resumed_run_sees_what_an_undisturbed_one_does(count, kind):
    split = numbered(23, kind)
    whole = train_batch(split, 5, 1, 0, count=40)
    for step in (0, 3, 17, 36):
        part = train_batch(split, 5, 1, step, count=count)
        for got, want in zip(part, whole, strict=True):
            assert got.dtype == want.dtype
            assert np.array_equal(got, want[step : step + count])


def test_the_seed_decides_the_order():
    orders = [train_batch(numbered(50), 50, seed, 0)[1] for seed in (0, 1, 0)]
    assert np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize(("n", "batch_size"), [(10, 5), (10, 4), (3, 8), (1, 1)])
def test_evaluation_counts_every_sample_once(n, batch_size):
    seen = []
    for inputs, labels, mask in eval_batches(numbered(n), batch_size):
        assert inputs.shape == (batch_size, 3, 1)
        assert labels.shape == mask.shape == (batch_size,)
        assert np.array_equal(inputs[:, 0, 0], labels)
        seen.extend(labels[mask])
    assert seen == list(range(n))


def test_bytes_become_floats_on_the_way_out():
    stored = np.array([0, 255], np.uint8).reshape(2, 1, 1)
    split = Split(stored, np.zeros(2, np.int32), offset=127.5, scale=1 / 127.5)
    inputs, _ = split.take(np.array([0, 1]))
    assert inputs.dtype == np.float32
    assert inputs.ravel().tolist() == [-1, 1]
    assert stored.ravel().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((11, 0, 0), "batch_size must be between 1 and the split's 10 samples, got 11"),
        ((0, 0, 0), "batch_size must be between"),
        ((5, -1, 0), "seed and step must not be negative, got -1 and 0"),
        ((5, 0, -2), "seed and step must not be negative, got 0 and -2"),
        ((5, 0, 0, 0), "count must be at least 1, got 0"),
    ],
)
def test_bad_batches_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_batch(numbered(10), *arguments)


def test_bad_evaluation_batches_are_refused_at_once():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        eval_batches(numbered(3), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 4}, r"inputs of split train must have shape \(4, 1\), got \(3, 1\)"),
        ({"classes": 2}, r"labels of split train must be in \[0, 2\)"),
        ({"splits": {"train": numbered(3)}}, "splits must be train, validation and test"),
    ],
)
def test_an_inconsistent_task_is_refused(changes, message):
    fields = {
        "name": "numbers",
        "length": 3,
        "input_kind": "real",
        "input_size": 1,
        "classes": 5,
        "splits": {name: numbered(5) for name in ("train", "validation", "test")},
    }
    Task(**fields)
    with pytest.raises(ValueError, match=message):
        Task(**(fields | changes))
