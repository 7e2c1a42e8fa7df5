"""Sequential MNIST from IDX files: made ones, damaged ones, and the real ones where they are."""

import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import load_task
from data.builtin.smnist import SMNISTConfig
from data.store.idx import read_idx

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

CONFIG = SMNISTConfig(validation=4)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "mnist"
    folder.mkdir()
    for (images, labels), count in zip(FILES.values(), (20, 6), strict=True):
        pictures = rng.integers(0, 256, (count, 28, 28))
        (folder / f"{images}.gz").write_bytes(gzip.compress(idx(pictures)))
        (folder / labels).write_bytes(idx(np.arange(count) % 10))  # plain files are read as well
    return folder


def test_pictures_become_sequences_in_reading_order(folder):
    task = load_task("smnist", CONFIG, data_dir=folder)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 16,
        "validation": 4,
        "test": 6,
    }
    pictures = read_idx(folder / f"{FILES['test'][0]}.gz", 3)
    inputs, labels, *_ = task.splits["test"].take(np.arange(6))
    np.testing.assert_allclose(inputs[3, 28 * 5 + 7, 0], pictures[3, 5, 7] / 255, rtol=1e-6)
    assert inputs.shape == (6, 784, 1)
    assert labels.tolist() == list(range(6))


def test_no_picture_is_in_two_splits(folder):
    splits = load_task("smnist", CONFIG, data_dir=folder).splits
    rows = {name: {x.tobytes() for x in split.inputs} for name, split in splits.items()}
    assert not rows["train"] & rows["validation"]
    assert len(rows["train"] | rows["validation"]) == 20


def test_without_files_or_network_the_wanted_file_is_named(offline):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz.*--data-dir"):
        load_task("smnist")


def test_what_was_prepared_in_full_needs_no_files(folder, offline, monkeypatch):
    monkeypatch.setattr("data.builtin.smnist.builder.PUBLISHED", {"train": 20, "test": 6})
    first = load_task("smnist", CONFIG, data_dir=folder)
    shutil.rmtree(folder)
    again = load_task("smnist", CONFIG)
    assert again.notes == first.notes == ()
    for name, split in first.splits.items():
        assert np.array_equal(again.splits[name].inputs, split.inputs)
    with pytest.raises(FileNotFoundError):  # another split is another data set
        load_task("smnist", SMNISTConfig(validation=5))


def test_what_was_prepared_in_part_is_not_taken_for_the_whole(folder, offline):
    task = load_task("smnist", CONFIG, data_dir=folder)
    assert task.notes == (
        "the files hold 20 of the 60000 train samples",
        "the files hold 6 of the 10000 test samples",
    )
    with pytest.raises(FileNotFoundError):
        load_task("smnist", CONFIG)


def test_a_missing_file_is_named(folder):
    (folder / FILES["test"][1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"has no t10k-labels-idx1-ubyte\.gz"):
        load_task("smnist", CONFIG, data_dir=folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: gzip.compress(raw)[: len(raw) // 2], "damaged or cut short"),
        (lambda raw: raw[:-1], r"as its header says, \(6, 28, 28\), got 4703"),
        (lambda raw: b"\x00\x00\x0d\x03" + raw[4:], "must begin with 00000803 .*got 00000d03"),
        (lambda raw: raw[:9], "must have a header of 16 bytes, got 9 bytes"),
    ],
)
def test_a_damaged_file_is_named(folder, damage, message):
    path = folder / f"{FILES['test'][0]}.gz"
    path.write_bytes(damage(gzip.decompress(path.read_bytes())))
    with pytest.raises(ValueError, match=message) as caught:
        load_task("smnist", CONFIG, data_dir=folder)
    assert str(path) in str(caught.value)


def test_labels_must_fit(folder):
    path = folder / FILES["test"][1]
    path.write_bytes(idx(np.array([1, 2, 10, 3, 4, 5])))
    with pytest.raises(ValueError, match="must hold labels from 0 to 9, got 10 in record 2"):
        load_task("smnist", CONFIG, data_dir=folder)
    path.write_bytes(idx(np.arange(5)))
    with pytest.raises(ValueError, match="must hold a label for each of 6 pictures, got 5"):
        load_task("smnist", CONFIG, data_dir=folder)


def test_validation_leaves_something_to_train_on(folder):
    with pytest.raises(ValueError, match="must leave some of the 20 training samples, got 20"):
        load_task("smnist", SMNISTConfig(validation=20), data_dir=folder)


@pytest.mark.slow
def test_the_real_files(raw):
    images = read_idx(raw("mnist") / f"{FILES['train'][0]}.gz", 3)
    whole = idx(images)
    assert hashlib.md5(whole).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    task = load_task("smnist", data_dir=raw("mnist"))
    assert task.notes == ()
    assert [len(split) for split in task.splits.values()] == [54_000, 6_000, 10_000]
    assert np.bincount(task.splits["test"].labels).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]


def test_time_may_be_a_channel_of_its_own(folder):
    """It is made where sequences are taken, so the pictures stay as small as they are."""
    plain = load_task("smnist", CONFIG, data_dir=folder)
    timed = load_task("smnist", SMNISTConfig(validation=4, time_channel=True), data_dir=folder)
    assert (plain.input_size, timed.input_size) == (1, 2)
    rows = np.array([[0, 3], [1, 2]])
    inputs = timed.splits["test"].take(rows).inputs
    np.testing.assert_array_equal(inputs[..., :1], plain.splits["test"].take(rows).inputs)
    np.testing.assert_allclose(inputs[1, 1, :, 1], np.arange(784) / 784, rtol=1e-6)
    assert timed.splits["test"].inputs.dtype == np.uint8
    assert timed.splits["test"].select(slice(0, 2)).time_channel
