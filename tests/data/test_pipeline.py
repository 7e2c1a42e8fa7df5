"""Laws of the loader: what a run sees depends on (seed, step) alone, and nothing is lost."""

import numpy as np
import pytest

from data import Shard, Split, Task, eval_batches, text_split, train_batch


def numbered(n: int, kind: str = "real") -> Split:
    """Samples that carry their own number."""
    rows = np.arange(n, dtype=np.int32)
    if kind == "tokens":
        return Split(np.repeat(rows[:, None], 3, axis=1), rows, input_kind="tokens")
    return Split(np.repeat(rows[:, None, None], 3, axis=1).astype(np.float32), rows)


@pytest.mark.parametrize(("n", "batch_size"), [(10, 5), (10, 3), (7, 7), (11, 4), (5, 1)])
def test_every_epoch_is_a_permutation(n, batch_size):
    steps = 3 * n  # a whole number of epochs, whatever the batch size
    inputs, labels, *_ = train_batch(numbered(n), batch_size, 3, 0, count=steps)
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
        for got, want in zip(part[:2], whole[:2], strict=True):
            assert got.dtype == want.dtype
            assert np.array_equal(got, want[step : step + count])


def test_the_seed_decides_the_order():
    orders = [train_batch(numbered(50), 50, seed, 0).labels for seed in (0, 1, 0)]
    assert np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize(("n", "batch_size"), [(10, 5), (10, 4), (3, 8), (1, 1)])
def test_evaluation_counts_every_sample_once(n, batch_size):
    seen = []
    for (inputs, labels, *_), mask in eval_batches(numbered(n), batch_size):
        assert inputs.shape == (batch_size, 3, 1)
        assert labels.shape == mask.shape == (batch_size,)
        assert np.array_equal(inputs[:, 0, 0], labels)
        seen.extend(labels[mask])
    assert seen == list(range(n))


def test_bytes_become_floats_on_the_way_out():
    stored = np.array([0, 255], np.uint8).reshape(2, 1, 1)
    split = Split(stored, np.zeros(2, np.int32), offset=127.5, scale=1 / 127.5)
    inputs = split.take(np.array([0, 1])).inputs
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


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(processes):
    split = numbered(23)
    shards = [Shard(k, processes) for k in range(processes)]
    whole = train_batch(split, 8, 1, 3, count=4)
    parts = [train_batch(split, 8, 1, 3, count=4, shard=shard) for shard in shards]
    np.testing.assert_array_equal(np.concatenate([p.inputs for p in parts], axis=1), whole.inputs)
    evaluated = list(eval_batches(split, 8))
    shared = [list(eval_batches(split, 8, shard)) for shard in shards]
    assert {len(batches) for batches in shared} == {len(evaluated)} == {3}
    for k, (batch, mask) in enumerate(evaluated):
        mine = [batches[k] for batches in shared]
        np.testing.assert_array_equal(np.concatenate([b.labels for b, _ in mine]), batch.labels)
        np.testing.assert_array_equal(np.concatenate([m for _, m in mine]), mask)


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 8"):
        train_batch(numbered(10), 8, 0, 0, shard=Shard(1, 3))
    with pytest.raises(ValueError, match=r"index must be in \[0, count=2\), got 2"):
        Shard(2, 2)


def test_windows_of_a_text_ask_for_the_next_token():
    text = np.arange(20, dtype=np.uint8)
    dense, sparse = text_split(text, 6, 1), text_split(text, 6, 6)
    assert len(dense) == 14
    assert len(sparse) == 3
    assert np.shares_memory(dense.inputs, text)
    batch = dense.take(np.array([[0, 13]]))
    assert batch.inputs.dtype == batch.labels.dtype == np.int32
    assert batch.inputs.tolist() == [[list(range(6)), list(range(13, 19))]]
    np.testing.assert_array_equal(batch.labels, batch.inputs + 1)
    asked = sparse.take(np.arange(3)).labels
    assert asked.ravel().tolist() == list(range(1, 19))
    with pytest.raises(ValueError, match="text must have more than length=20 tokens, got 20"):
        text_split(text, 20, 1)


def pairs(n: int) -> Split:
    rows = np.arange(n, dtype=np.int32)
    inputs = np.broadcast_to(rows.astype(np.uint8)[:, None, None], (n, 2, 4))
    lengths = np.stack([1 + rows % 4, 4 - rows % 4], axis=1).astype(np.int32)
    return Split(inputs, rows % 2, lengths=lengths, input_kind="tokens")


def timed(n: int) -> Split:
    rows = np.arange(n, dtype=np.float32)
    inputs = np.zeros((n, 4, 6), np.uint8)
    labels = np.broadcast_to(rows[:, None, None], (n, 4, 2))
    intervals = np.broadcast_to(rows[:, None] + 1, (n, 4))
    return Split(inputs, labels, intervals=intervals, offset=np.arange(6, dtype=np.float32))


def test_what_goes_with_a_sequence_travels_with_it():
    batch = train_batch(pairs(9), 4, 0, 0, count=2)
    assert batch.inputs.shape == (2, 4, 2, 4)
    assert batch.lengths is not None
    np.testing.assert_array_equal(batch.lengths[..., 0], 1 + batch.inputs[..., 0, 0] % 4)
    batch = train_batch(timed(9), 4, 0, 0, count=2)
    assert batch.lengths is None
    assert batch.intervals is not None
    np.testing.assert_array_equal(batch.intervals, batch.labels[..., 0] + 1)
    np.testing.assert_array_equal(batch.inputs[0, 0, 0], -np.arange(6))


def of_all(split: Split) -> dict:
    return dict.fromkeys(("train", "validation", "test"), split)


@pytest.mark.parametrize(
    ("fields", "outputs"),
    [
        ({"kind": "pair", "length": 4, "input_kind": "tokens", "input_size": 9, "classes": 2}, 2),
        ({"kind": "regression", "length": 4, "input_kind": "real", "input_size": 6}, 2),
        ({"kind": "language", "length": 5, "input_kind": "tokens", "input_size": 20}, 20),
    ],
)
def test_tasks_of_every_kind(fields, outputs):
    makers = {
        "pair": lambda: pairs(9),
        "regression": lambda: timed(9),
        "language": lambda: text_split(np.arange(20, dtype=np.uint8), 5, 5),
    }
    splits = of_all(makers[fields["kind"]]())
    assert Task(name="x", splits=splits, **fields).outputs == outputs
    with pytest.raises(ValueError, match="inputs of split train must have shape"):
        Task(name="x", splits=splits, **fields | {"length": 7})
    with pytest.raises(ValueError, match="classes must be 1 or more for classification, pair"):
        Task(
            name="x",
            splits=splits,
            **fields
            | {"classes": None if outputs == 2 else 3}
            | ({"classes": 3} if fields["kind"] == "regression" else {}),
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": np.array([0, 1, 1], np.int32)}, "lengths must be in 1..3, got values from 0"),
        ({"lengths": np.array([3, 4, 1], np.int32)}, "lengths must be in 1..3, got values from 1"),
        ({"input_kind": "tokens"}, "tokens inputs must be uint8 or int32, got float32"),
    ],
)
def test_an_inconsistent_split_is_refused(changes, message):
    split = numbered(3)
    with pytest.raises(
        (ValueError, TypeError), match=message if "one length" not in message else ""
    ):
        Split(split.inputs, split.labels, **changes)
