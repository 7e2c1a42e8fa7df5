"""Texts as tokens and the tokens that follow."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from data import CharLMConfig, load_task
from data.text import show

TEXT = "".join(f"{i} żółw, {i * i} wolno; " for i in range(900))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "text" / "any.txt"
    file.parent.mkdir()
    file.write_text(TEXT, "utf-8")
    return file


def whole(split, length: int) -> np.ndarray:
    """The text of a split, from windows that ask for every token once."""
    return np.concatenate([split.inputs[0, :1], split.labels.reshape(-1)])


@pytest.mark.parametrize("vocabulary", ["characters", "bytes"])
def test_splits_are_the_text_in_order(path, vocabulary):
    config = CharLMConfig(text=path, vocabulary=vocabulary, length=50, validation=0.1, test=0.2)
    task = load_task("charlm", config)
    units = TEXT if vocabulary == "characters" else TEXT.encode()
    size = len(units)
    ends = [0, round(size * 0.7), round(size * 0.8), size]
    assert task.symbols is not None
    for (name, split), start, end in zip(task.splits.items(), ends[:-1], ends[1:], strict=True):
        part = units[start:end]
        if name == "train":
            assert len(split) == len(part) - 50  # a window at every token
            split = split.select(slice(0, None, 50))
        else:
            assert len(split) == (len(part) - 1) // 50
        tokens = whole(split, 50)
        part = part[: len(tokens)]
        if vocabulary == "characters":
            assert show(tokens, task.symbols) == part
        else:
            assert tokens.astype(np.uint8).tobytes() == part
        batch = split.take(np.arange(2))
        assert batch.inputs.shape == batch.labels.shape == (2, 50)
    assert task.input_size == (len(set(TEXT)) if vocabulary == "characters" else 256)
    assert 3 < task.baselines["frequencies"] < 6


def test_folders_and_packed_files_do_as_well(path):
    config = CharLMConfig(length=50)
    named = load_task("charlm", CharLMConfig(text=path, length=50)).splits["test"]
    found = load_task("charlm", config, data_dir=path.parent).splits["test"]
    (path.parent / "any.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    packed = load_task("charlm", config, data_dir=path.parent).splits["test"]
    assert np.array_equal(named.inputs, found.inputs)
    assert np.array_equal(named.inputs, packed.inputs)


def test_which_text_must_be_clear(path):
    with pytest.raises(ValueError, match="name two texts: give one"):
        load_task("charlm", CharLMConfig(text=path), data_dir=path.parent)
    (path.parent / "other.txt").write_text("more")
    with pytest.raises(FileNotFoundError, match=r"must hold one text, \*\.txt, got any.txt, other"):
        load_task("charlm", data_dir=path.parent)


def test_texts_that_cannot_be_read_are_named(path):
    path.write_bytes(TEXT.encode()[:1000] + b"\xff" + TEXT.encode())
    with pytest.raises(ValueError, match=r"must be UTF-8, got byte 0xff at 1000") as caught:
        load_task("charlm", CharLMConfig(text=path, length=50))
    assert str(path) in str(caught.value)
    assert load_task("charlm", CharLMConfig(text=path, vocabulary="bytes", length=50))
    path.write_text("".join(chr(0x4E00 + i) for i in range(300)))
    with pytest.raises(ValueError, match="must hold 2 to 256 different characters, got 300"):
        load_task("charlm", CharLMConfig(text=path, length=5))
    path.write_text("short")
    with pytest.raises(ValueError, match="must hold enough tokens for split test, got 5 in all"):
        load_task("charlm", CharLMConfig(text=path, length=5))
    path.write_text("short, short " * 3)
    with pytest.raises(ValueError, match="length must be below the 2 tokens of split"):
        load_task("charlm", CharLMConfig(text=path, length=5))


def test_a_packed_text_that_is_cut_in_half_is_named(path):
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="damaged or cut short") as caught:
        load_task("charlm", CharLMConfig(text=path))
    assert str(path) in str(caught.value)


def test_a_text_of_the_users_own_is_not_taken_for_tinyshakespeare(path, offline):
    load_task("charlm", CharLMConfig(text=path))
    with pytest.raises(FileNotFoundError, match=r"input\.txt \(1\.1 MB\).*tinyshakespeare"):
        load_task("charlm")


def test_tinyshakespeare(raw, offline):
    task = load_task("charlm", data_dir=raw("text"))
    assert (task.input_size, task.outputs) == (65, 65)
    assert 4.6 < task.baselines["frequencies"] < 5
    again = load_task("charlm")  # prepared from the published file: found without naming it
    assert np.array_equal(again.splits["test"].inputs, task.splits["test"].inputs)
