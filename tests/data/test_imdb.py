"""IMDB reviews as bytes: made ones, damaged ones, and a real sample."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from data import IMDBConfig, load_task
from data.text import show

CONFIG = IMDBConfig(length=40)
REVIEWS = {
    "train/pos/0_9.txt": "I like it — très bien",
    "train/pos/1_10.txt": "better and better and better and better and better",
    "train/neg/0_1.txt": "no",
    "train/neg/1_4.txt": "no, no",
    "test/pos/0_8.txt": "yes",
    "test/neg/0_2.txt": "never",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in REVIEWS.items():
        path = tmp_path / "imdb" / "aclImdb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (tmp_path / "imdb" / "aclImdb" / "train" / "unsup").mkdir()
    (tmp_path / "imdb" / "aclImdb" / "train" / "unsup" / "0_0.txt").write_text("not labelled")
    return tmp_path / "imdb"


def packed(folder: Path) -> Path:
    place = folder.parent / "packed"
    place.mkdir()
    with tarfile.open(place / "aclImdb_v1.tar.gz", "w:gz") as tar:
        tar.add(folder / "aclImdb", "aclImdb")
    return place


@pytest.mark.parametrize("form", ["parent", "folder", "archive"])
def test_reviews_become_bytes(folder, form):
    place = {"parent": folder, "folder": folder / "aclImdb"}.get(form) or packed(folder)
    task = load_task("imdb", CONFIG, data_dir=place)
    train = task.splits["train"]
    assert train.lengths is not None
    found = {}
    for row, length, label in zip(train.inputs, train.lengths, train.labels, strict=True):
        assert not row[length:].any()
        found[row[:length].tobytes()] = int(label)
    want = {
        text.encode()[:40]: int("pos" in name) for name, text in REVIEWS.items() if "train" in name
    }
    assert found == want
    assert task.splits["validation"] is task.splits["test"]
    assert len(task.splits["test"]) == 2
    assert task.symbols is not None
    assert show(train.inputs[0][:2], task.symbols) == "no"


def test_reviews_can_be_held_out(folder):
    config = IMDBConfig(length=40, validation=1)
    splits = load_task("imdb", config, data_dir=folder).splits
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"caf\xe9 noir", "must be UTF-8, got byte 0xe9 at 3"), (b"", "must hold a review")],
)
@pytest.mark.parametrize("pack", [False, True])
def test_a_damaged_review_is_named(folder, text, message, pack, cache):
    path = folder / "aclImdb" / "train" / "neg" / "1_4.txt"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=rf"train/neg/1_4\.txt {message}"):
        load_task("imdb", CONFIG, data_dir=packed(folder) if pack else folder)
    assert not list(cache.rglob("dataset_info.json"))


def test_an_archive_that_is_cut_in_half_is_named(folder):
    path = packed(folder) / "aclImdb_v1.tar.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged or cut short in") as caught:
        load_task("imdb", CONFIG, data_dir=path.parent)
    assert str(path) in str(caught.value)


def test_both_kinds_must_be_there(folder):
    (folder / "aclImdb" / "test" / "pos" / "0_8.txt").unlink()
    with pytest.raises(ValueError, match="must hold reviews of both kinds in test"):
        load_task("imdb", CONFIG, data_dir=folder)


def test_the_wanted_file_is_named(tmp_path, offline):
    for data_dir in (None, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"aclImdb_v1\.tar\.gz.*ai\.stanford\.edu"):
            load_task("imdb", data_dir=data_dir)


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="data_dir /nowhere does not exist"):
        load_task("imdb", data_dir=Path("/nowhere"))


def test_a_real_sample(raw):
    task = load_task("imdb", data_dir=raw("imdb"))
    for split in (task.splits["train"], task.splits["test"]):
        assert np.bincount(split.labels).tolist() == [2000, 2000]
        assert split.lengths is not None
        assert split.lengths.max() == 4096
        assert 800 < np.median(split.lengths) < 1200
        assert split.inputs.dtype == np.uint8
    assert task.notes[0] == "the files hold 4000 of the 25000 train samples"
