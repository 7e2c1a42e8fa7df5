"""Sequential CIFAR-10 from binary batches: made ones, damaged ones, and a real sample."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data import SCIFARConfig, load_task

CONFIG = SCIFARConfig(validation=0.25)


def rows(count: int, seed: int) -> np.ndarray:
    batch = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    batch[:, 0] = np.arange(count) % 10
    return batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "cifar" / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    for name, count in (("data_batch_1", 12), ("data_batch_2", 8), ("test_batch", 10)):
        (place / f"{name}.bin").write_bytes(rows(count, count).tobytes())
    return tmp_path / "cifar"


def packed(folder: Path) -> Path:
    place = folder.parent / "packed"
    place.mkdir()
    with tarfile.open(place / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    return place


def test_pictures_become_normalised_colours_in_reading_order(folder):
    task = load_task("scifar", CONFIG, data_dir=folder)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 15,
        "validation": 5,
        "test": 10,
    }
    batch = task.splits["test"].take(np.arange(10))
    assert batch.labels.tolist() == list(range(10))
    red, green, blue = rows(10, 10)[4, 1:].reshape(3, 32, 32)[:, 5, 7] / 255
    want = (red - 0.4914) / 0.2470, (green - 0.4822) / 0.2435, (blue - 0.4465) / 0.2616
    np.testing.assert_allclose(batch.inputs[4, 5 * 32 + 7], want, rtol=1e-4, atol=1e-5)
    assert (task.length, task.input_size, task.classes) == (1024, 3, 10)


def test_the_archive_holds_the_same_and_no_picture_is_in_two_splits(folder):
    unpacked, archive = (
        load_task("scifar", CONFIG, data_dir=place).splits for place in (folder, packed(folder))
    )
    seen = []
    for name, split in unpacked.items():
        assert np.array_equal(split.inputs, archive[name].inputs)
        assert np.array_equal(split.labels, archive[name].labels)
        seen += [row.tobytes() for row in split.inputs]
    assert len(set(seen)) == 30


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-5], r"data_batch_2\.bin must hold .* of 3073 bytes, .* got 24579 bytes"),
        (
            lambda raw: b"\x0b" + raw[1:],
            r"data_batch_2\.bin must hold labels from 0 to 9, got 11 in record 0",
        ),
        (lambda raw: b"", r"data_batch_2\.bin must hold .* got 0 bytes"),
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_a_damaged_batch_is_named(folder, damage, message, pack):
    path = folder / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_task("scifar", CONFIG, data_dir=packed(folder) if pack else folder)


def test_an_archive_that_is_cut_in_half_is_named(folder, cache):
    path = packed(folder) / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged or cut short in") as caught:
        load_task("scifar", CONFIG, data_dir=path.parent)
    assert str(path) in str(caught.value)
    assert not list(cache.rglob("dataset_info.json"))


def test_an_archive_without_batches_is_named(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme.html"), io.BytesIO())
    with pytest.raises(ValueError, match=r"must hold test_batch\.bin .*, got neither"):
        load_task("scifar", CONFIG, data_dir=tmp_path)


def test_the_wanted_file_is_named(tmp_path, offline):
    for data_dir in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"cifar-10-binary\.tar\.gz.*cs\.toronto"):
            load_task("scifar", data_dir=data_dir)


def test_a_real_sample(raw):
    task = load_task("scifar", data_dir=raw("cifar10"))
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 1800,
        "validation": 200,
        "test": 500,
    }
    inputs = task.splits["train"].take(np.arange(1800)).inputs
    assert np.abs(inputs.mean(axis=(0, 1))).max() < 0.1
    assert np.abs(inputs.std(axis=(0, 1)) - 1).max() < 0.1
    assert task.notes[0] == "the files hold 2000 of the 50000 train samples"
