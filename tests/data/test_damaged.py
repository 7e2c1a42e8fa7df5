"""Files that are damaged in any way, and options of any kind: one sentence, or none."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest

from data import TASKS, Split, Task, array_task, load_task, task_entry
from data.readers.arrays import ArraysConfig
from data.readers.audio import AudioConfig
from data.readers.libraries import DatasetConfig
from data.readers.series import SeriesConfig
from data.readers.text import TextConfig
from data.readers.ts import TimeSeriesConfig

LABELS = np.arange(40) % 2
INPUTS = np.random.default_rng(0).normal(size=(40, 6, 2))


def write_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"inputs": INPUTS.tolist(), "labels": LABELS}), path)


def write_wavs(path: Path) -> None:
    from scipy.io import wavfile

    path.mkdir()
    for k in range(12):
        wave = np.random.default_rng(k).normal(size=400) * 1000
        wavfile.write(path / f"{'ab'[k % 2]}_{k}.wav", 8000, wave.astype(np.int16))


def write_folder(path: Path) -> None:
    path.mkdir()
    np.save(path / "inputs.npy", INPUTS)
    np.save(path / "labels.npy", LABELS)


def write_ts(path: Path) -> None:
    cases = [f"{','.join(map(str, x[:, 0]))}:{'ab'[k % 2]}" for k, x in enumerate(INPUTS)]
    path.write_text("\n".join(["@classLabel true a b", "@data", *cases]))


def write_csv(path: Path) -> None:
    path.write_text("time,a,b\n" + "\n".join(f"{k},{k % 7},{k % 5}" for k in range(300)))


def write_tokenized(path: Path) -> None:
    path.mkdir()
    (path / "a.txt").write_text("a b " * 3500)
    (path / "tokenizer.json").write_text(
        '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"a"},'
        '"pre_tokenizer":{"type":"Whitespace"}}'
    )


WRITERS = {
    "w.npz": lambda path: np.savez(path, inputs=INPUTS, labels=LABELS),
    "arrays": write_folder,
    "w.parquet": write_parquet,
    "wavs": write_wavs,
    "w.ts": write_ts,
    "w.csv": write_csv,
    "w.txt": lambda path: path.write_text("abc " * 2000),
    "text": write_tokenized,
}


def damaged(raw: bytes, rng: random.Random) -> bytes:
    content, kind = bytearray(raw), rng.randrange(5)
    place = rng.randrange(len(content))
    if kind == 0:
        return bytes(content[:place])
    if kind == 1:
        return rng.randbytes(rng.choice([0, 1, 300]))
    if kind == 2:
        content[place : place + 16] = bytes(16)
    elif kind == 3:
        content[place:place] = rng.randbytes(4)
    else:
        for _ in range(3):
            content[rng.randrange(min(150, len(content)))] = rng.randrange(256)
    return bytes(content)


def sentence(call) -> str | None:
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


def read(path: Path, **options) -> Task:
    return load_task(str(path), task_entry(str(path)).config_class(**options))


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_told_in_one_sentence_or_read(name, tmp_path, monkeypatch):
    monkeypatch.setattr("data.readers.supervised._baselines", lambda *_: {})
    monkeypatch.setattr("data.readers.forecast._baselines", lambda *_: {})
    if name == "text":
        pytest.importorskip("tokenizers")
    path, rng = tmp_path / name, random.Random(0)
    WRITERS[name](path)
    files = [path] if path.is_file() else sorted(path.iterdir())
    for _ in range(30):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(damaged(whole, rng))
        said = sentence(lambda: read(path))
        assert said is None or ("must" in said and "\n" not in said)
        file.write_bytes(whole)
    assert len(read(path).splits["train"])


OPTIONS = [entry.config_class for entry in TASKS.values()]
OPTIONS += [ArraysConfig, AudioConfig, DatasetConfig, SeriesConfig, TextConfig, TimeSeriesConfig]
STRANGE = ["strange", (), ("a", 1), {}, None, float("nan"), float("inf"), -1, 10**12, 1.5, True]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: each.__name__)
def test_options_of_another_kind_are_told_in_one_sentence(options):
    for field in dataclasses.fields(options):
        said = [sentence(lambda x=x, name=field.name: options(**{name: x})) for x in STRANGE]
        refused = [each for each in said if each is not None]
        assert len(refused) >= 4, field.name
        assert all(field.name in each and "\n" not in each for each in refused)


N = len(LABELS)
REFUSED = {
    "a single number": ({"labels": np.array(1)}, "labels of split train must be an array"),
    "no steps": ({"inputs": np.zeros((N, 0, 2))}, "inputs must have steps and channels"),
    "complex labels": ({"labels": LABELS + 1j}, "labels must be real numbers, got complex128"),
    "dates": ({"labels": LABELS.astype("M8[D]")}, "labels must be real numbers, got datetime64"),
    "NaN as a class": (
        {"labels": np.where(LABELS, np.nan, 0), "kind": "classification"},
        "labels of classes must be finite",
    ),
    "lengths of halves": ({"lengths": np.full(N, 2.5)}, "lengths must be whole numbers"),
    "lengths beyond int32": ({"lengths": np.full(N, 2**32 + 1)}, "lengths must be in 1..6"),
    "words as intervals": ({"intervals": np.full((N, 6), "a")}, "intervals must be real numbers"),
    "infinite intervals": ({"intervals": np.full((N, 6), np.inf)}, "intervals must be finite"),
    "a mask of sevens": ({"mask": np.full((N, 6), 7)}, "mask must be True or False everywhere"),
    "a mask of words": ({"mask": np.full((N, 6), "x")}, "mask must be True or False everywhere"),
    "a short mask of labels": ({"label_mask": np.ones(3)}, "label_mask .*must have"),
    "no label known": ({"label_mask": np.zeros(N)}, "labels of split train must be known"),
    "tokens beyond int32": (
        {"inputs": np.full((N, 6), 2**40), "input_kind": "tokens"},
        "tokens must be below",
    ),
    "four axes of labels": ({"labels": np.zeros((N, 1, 1, 1))}, r"labels must be \[n\], \[n, k\]"),
    "halves as tokens": (
        {"inputs": [np.full(3 + k % 2, 1.5) for k in range(N)], "input_kind": "tokens"},
        "tokens must be whole numbers from 0",
    ),
    "lengths of lists": (
        {"inputs": [x[: 3 + k % 2] for k, x in enumerate(INPUTS)], "lengths": np.full(N, 3)},
        "lengths must be left out where inputs are lists",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_without_a_meaning_are_refused(name):
    given, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        array_task(**{"inputs": INPUTS, "labels": LABELS, **given})


def test_infinity_is_not_a_missing_value(tmp_path):
    inputs = INPUTS.copy()
    inputs[3, 2, 1] = np.inf
    with pytest.raises(
        ValueError, match="inputs must be numbers that float32 has, got infinity in"
    ):
        array_task(inputs, LABELS, missing="mask")
    write_csv(tmp_path / "w.csv")
    content = (tmp_path / "w.csv").read_text().replace("\n9,2,4", "\n9,1e39,4")
    (tmp_path / "w.csv").write_text(content)
    with pytest.raises(ValueError, match="numbers that float32 has, got another in row 11"):
        read(tmp_path / "w.csv", missing="mask")


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    arrays = {"inputs": INPUTS, "labels": LABELS, "train_labels": LABELS}
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ValueError, match="must have one array labels, got train_labels"):
        read(tmp_path / "w.npz")


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "w.csv").write_text("time,a,a\n1,2,3\n")
    with pytest.raises(ValueError, match="must have columns of different names, got 'a' twice"):
        read(tmp_path / "w.csv")


def test_tokens_beyond_the_vocabulary_are_refused():
    split = Split(np.full((3, 4), 7, np.int32), np.zeros(3, np.int32), input_kind="tokens")
    splits = dict.fromkeys(("train", "validation", "test"), split)
    with pytest.raises(ValueError, match=r"tokens of split train must be in \[0, 5\), got 7 to 7"):
        Task("made up", 4, "tokens", 5, splits, classes=2)


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 5000, f"{'x' * 5000}.csv"])
def test_names_that_no_file_can_have_are_told_in_one_sentence(name):
    with pytest.raises(ValueError, match="`task`"):
        load_task(name)
