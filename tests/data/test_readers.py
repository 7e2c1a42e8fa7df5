"""Data of the user's in files: what is read, how it is divided, and what is refused."""

import io
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from data import Split, Task, array_task, fingerprint, load_task, save_task, task_entry
from data.readers.divide import Shares, divided
from data.readers.forecast import forecast_task


def load(path: Path, **options: Any) -> Task:
    return load_task(str(path), task_entry(str(path)).config_class(**options))


def waves(n: int = 60, L: int = 20, c: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Slow and fast waves, three times as many of the one as of the other."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 4 == 0).astype(int)
    speed = np.where(labels, 0.9, 0.3)[:, None, None]
    phase = rng.normal(size=(n, 1, c))
    return np.sin(np.arange(L)[:, None] * speed + phase), labels


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def write_ts(path: Path, series: np.ndarray, labels: list[str], header: str = "") -> Path:
    lines = ["# made for a test", "@problemName waves", "@timeStamps false"]
    lines += [header or "@classLabel true " + " ".join(sorted(set(labels))), "@data"]
    for case, label in zip(series, labels, strict=True):
        dimensions = [",".join("?" if np.isnan(x) else f"{x:.6f}" for x in d) for d in case.T]
        lines.append(":".join([*dimensions, label]))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_csv(path: Path, rows: int = 400, start: str = "2020-01-01") -> Path:
    rng = np.random.default_rng(0)
    times = np.datetime64(start) + np.arange(rows) * np.timedelta64(1, "h")
    day = np.sin(np.arange(rows) * 2 * np.pi / 24)
    lines = ["when,load,heat,note"]
    for k in range(rows):
        lines.append(f"{times[k]}:00,{day[k] + 0.1 * rng.normal():.4f},{20 + day[k - 3]:.4f},x")
    path.write_text("\n".join(lines).replace("T", " ") + "\n")
    return path


def write_wav(path: Path, pitch: float, seconds: float = 0.3, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)
    wavfile.write(path, rate, (wave * 2**14).astype(np.int16))


# what is read


def test_one_file_of_arrays_is_divided_by_class_and_normalised(tmp_path):
    inputs, labels = waves()
    task = load(save(tmp_path / "w.npz", inputs=5 + 3 * inputs, labels=labels))
    assert (task.name, task.kind, task.length, task.input_size) == ("w", "classification", 20, 2)
    assert task.output_names == ("0", "1")
    assert [len(split) for split in task.splits.values()].count(0) == 0
    assert sum(map(len, task.splits.values())) == 60
    for split in task.splits.values():
        assert 0.15 < split.labels.mean() < 0.35
    seen = task.splits["train"].take(np.arange(len(task.splits["train"]))).inputs
    np.testing.assert_allclose(seen.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std((0, 1)), 1, atol=1e-4)
    assert {"majority", "logistic regression"} == set(task.baselines)
    again = load(tmp_path / "w.npz")
    for name, split in task.splits.items():
        np.testing.assert_array_equal(split.labels, again.splits[name].labels)


def test_arrays_in_memory_are_as_those_in_a_file(tmp_path):
    inputs, labels = waves()
    task = array_task(inputs, labels, name="w", test=0.3)
    file = load(save(tmp_path / "w.npz", inputs=inputs, labels=labels), test=0.3)
    assert fingerprint(task) == fingerprint(file)
    ragged = array_task([case[: 5 + k % 4] for k, case in enumerate(inputs)], labels)
    assert ragged.length == 8
    assert ragged.splits["train"].lengths is not None


@pytest.mark.parametrize("form", ["prefixes", "folder", "npy", "parquet"])
def test_splits_that_are_there_are_kept(form, tmp_path):
    train, test = waves(seed=0), waves(n=12, seed=1)
    folder = tmp_path / "waves"
    folder.mkdir()
    path = folder
    if form == "prefixes":
        named = {"train_inputs": train[0], "train_labels": train[1]}
        path = save(tmp_path / "w.npz", **named, test_inputs=test[0], test_labels=test[1])
    elif form == "folder":
        for name, (inputs, labels) in {"train": train, "test": test}.items():
            save(folder / f"{name}.npz", inputs=inputs, labels=labels)
    elif form == "npy":
        for name, (inputs, labels) in {"train": train, "test": test}.items():
            np.save(folder / f"{name}_inputs.npy", inputs)
            np.save(folder / f"{name}_labels.npy", labels)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        for name, (inputs, labels) in {"train": train, "test": test}.items():
            table = pyarrow.table({"inputs": inputs.tolist(), "labels": labels})
            parquet.write_table(table, folder / f"{name}.parquet")
    task = load(path)
    assert len(task.splits["test"]) == 12
    np.testing.assert_allclose(task.splits["test"].inputs, test[0], rtol=1e-6)
    assert len(task.splits["train"]) + len(task.splits["validation"]) == 60


@pytest.mark.parametrize(
    ("labels", "kind", "outputs"),
    [
        (np.linspace(0, 1, 40), "values", 1),
        (np.zeros((40, 3)), "values", 3),
        (np.zeros((40, 20, 3)), "regression", 3),
        (np.arange(40) % 4, "classification", 4),
        (np.array(["no", "yes"] * 20), "classification", 2),
        (np.eye(40, 3), "multilabel", 3),
    ],
)
def test_what_is_asked_follows_the_type_of_the_labels(labels, kind, outputs, tmp_path):
    inputs, _ = waves(n=40)
    options = {"kind": "multilabel"} if kind == "multilabel" else {}
    task = load(save(tmp_path / "w.npz", inputs=inputs, labels=labels), **options)
    assert (task.kind, task.outputs) == (kind, outputs)


def test_missing_values_come_as_zeros_with_a_mask(tmp_path):
    inputs, labels = waves()
    inputs[3, 5, 1] = np.nan
    file = save(tmp_path / "w.npz", inputs=inputs, labels=labels)
    with pytest.raises(ValueError, match='inputs must be finite unless a mask or missing="mask"'):
        load(file)
    task = load(file, missing="mask")
    assert task.input_size == 4
    seen = np.concatenate([s.take(np.arange(len(s))).inputs for s in task.splits.values()])
    assert np.isfinite(seen).all()
    gaps = seen[..., 2:] == 0
    assert gaps.sum() == 1
    assert (seen[..., :2][gaps] == 0).all()


def test_a_pair_of_ts_files_find_each_other(tmp_path):
    series, numbers = waves()
    labels = [("slow", "fast")[k] for k in numbers]
    series[0, 3, 0] = np.nan
    write_ts(tmp_path / "W_TRAIN.ts", series, labels)
    write_ts(
        tmp_path / "W_TEST.ts",
        series[
            :10,
            :,
        ],
        labels[:10],
    )
    for path in (tmp_path, tmp_path / "W_TRAIN.ts"):
        task = load(path)
        assert (task.name, task.classes, len(task.splits["test"])) == ("W", 2, 10)
        assert task.output_names == ("fast", "slow")
        assert task.input_size == 4  # two dimensions, and whether they are there
    write_ts(tmp_path / "r.ts", series[1:], [str(x) for x in numbers[1:]], "@targetLabel true")
    assert load(tmp_path / "r.ts").kind == "values"


def test_recordings_are_of_the_class_of_their_folder_or_their_name(tmp_path):
    for k in range(12):
        name = ("low", "high")[k % 2]
        write_wav(tmp_path / "folders" / name / f"{k}.wav", (300, 1500)[k % 2], 0.2 + 0.01 * k)
        write_wav(tmp_path / "names" / f"{name}_{k}.wav", (300, 1500)[k % 2], rate=16_000)
    for folder in ("folders", "names"):
        task = load(tmp_path / folder, normalize=False)
        assert task.output_names == ("high", "low")
        assert task.input_size == 32
        train = task.splits["train"]
        bands = train.take(np.arange(len(train))).inputs.mean(1).argmax(-1)
        low = bands[train.labels == 1].max()
        assert low < bands[train.labels == 0].min()
    raw = load(tmp_path / "names", features="raw", seconds=0.1)
    assert (raw.length, raw.input_size) == (800, 1)


# forecasting


def test_a_table_is_forecast_by_time(tmp_path):
    task = load(write_csv(tmp_path / "s.csv"), window=48, horizon=6)
    assert (task.kind, task.length, task.input_size, task.outputs) == ("regression", 48, 2, 12)
    assert task.targets == (0, 1)
    assert task.output_names is not None
    assert task.output_names[:3] == ("load+1", "heat+1", "load+2")
    assert task.baselines["ridge"] < task.baselines["persistence"]
    one = load(tmp_path / "s.csv", window=48, horizon=6, targets=("heat",))
    assert one.targets == (1,)
    assert one.outputs == 6


def test_windows_and_what_follows_are_rows_of_the_series():
    T, w, h = 60, 8, 3
    values = np.stack([np.arange(T), 100.0 - np.arange(T)], -1).astype(np.float32)
    task = forecast_task("t", values, ("a", "b"), ("b",), window=w, horizon=h)
    assert task.output_offset is not None
    assert task.output_scale is not None
    first_validation = T - 12 - 6
    seen = {}
    for name, split in task.splits.items():
        batch = split.take(np.arange(len(split)))
        rows = np.rint(batch.inputs[..., 0] / split.scale[0] + split.offset[0]).astype(int)
        ahead = batch.labels * task.output_scale + task.output_offset
        want = 100 - (rows[..., None] + 1 + np.arange(h))
        known = batch.label_mask
        np.testing.assert_allclose(ahead[known], want[known], rtol=1e-4)
        assert known[:, -1].all()
        seen[name] = (100 - ahead[known]).round()
        assert known.sum() == known.shape[0] * h * (w - w // 2 if name == "train" else 1)
    assert seen["train"].max() < first_validation <= seen["validation"].min()
    assert seen["validation"].max() < T - 12 <= seen["test"].min()
    assert seen["test"].max() == T - 1
    np.testing.assert_allclose(task.splits["train"].offset[0], (first_validation - 1) / 2)


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"]
)
def test_times_are_read_as_they_are_often_written(form, tmp_path):
    start = datetime(2020, 1, 1)
    times = [(start + timedelta(hours=k)).strftime(form) for k in range(900)]
    rows = [f"{time},{k % 24}" for k, time in enumerate(times)]
    (tmp_path / "s.csv").write_text("\n".join(["date,x", *rows]))
    task = load(tmp_path / "s.csv", horizon=2)
    assert task.notes == ()  # all an hour apart
    assert task.length == 45


def test_a_data_set_of_tfds_is_read_by_its_columns(cache):
    load_task("digits")
    (folder,) = (cache / "data" / "digits").iterdir()
    name = f"tfds:digits/{folder.name}"
    config = task_entry(name).config_class(inputs="image", labels="label")
    task = load_task(name, config, data_dir=cache / "data")
    assert (task.length, task.input_size, task.classes) == (8, 8, 10)
    assert [len(split) for split in task.splits.values()] == [1297, 200, 300]
    with pytest.raises(ValueError, match="must be a data set that tensorflow-datasets has"):
        load_task("tfds:nothing_of_this_name", data_dir=cache)


def test_text_is_cut_into_windows_of_bytes(tmp_path):
    (tmp_path / "a.md").write_text("abc " * 300)
    (tmp_path / "b.txt").write_text("xyz " * 300)
    task = load(tmp_path, length=16)
    assert (task.kind, task.length, task.input_size) == ("language", 16, 256)
    assert bytes(task.splits["train"].inputs[0]) == b"abc abc abc abc "
    with pytest.raises(ValueError, match="must have more than length=256 tokens"):
        load(tmp_path)


def test_a_folder_may_bring_its_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "a": 1, "b": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "a.txt").write_text("a b b " * 300)
    task = load(tmp_path, length=8)
    assert task.input_size == 3
    assert task.splits["train"].inputs[0].tolist() == [1, 2, 2, 1, 2, 2, 1, 2]


def test_a_folder_of_datasets_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"inputs": [[0.0, 1.0]] * 20, "labels": [0, 1] * 10}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    assert load(tmp_path / "saved").classes == 2


def test_a_task_is_kept_as_it_is(tmp_path):
    inputs, labels = waves()
    inputs[3, 5, 1] = np.nan
    task = load(save(tmp_path / "w.npz", inputs=inputs, labels=labels), missing="mask")
    save_task(task, tmp_path / "kept")
    again = load(tmp_path / "kept")
    assert fingerprint(again) == fingerprint(task)
    assert again.output_names == task.output_names
    other = replace(task, splits={**task.splits, "test": task.splits["validation"]})
    assert fingerprint(other) != fingerprint(task)
    (tmp_path / "kept" / "stored-task.json").write_text("{}")
    with pytest.raises(ValueError, match="must be as save_task writes it"):
        load(tmp_path / "kept")


# what is refused


def wrong_ts(content: str):
    return lambda folder: (folder / "w.ts").write_text(content)


def wrong_csv(content: str):
    return lambda folder: (folder / "w.csv").write_text(content)


def wrong_npz(**changes: Any):
    def write(folder):
        inputs, labels = waves(n=20)
        arrays = {"inputs": inputs, "labels": labels, **changes}
        save(folder / "w.npz", **{k: v for k, v in arrays.items() if v is not None})

    return write


def a_folder_of_wav(*names: str):
    def write(folder):
        (folder / "w.wavs").mkdir()
        for name in names:
            write_wav(folder / "w.wavs" / name, 300)

    return write


HOURS = [f"2020-01-01T{k:02}:00:00,{k}" for k in range(24)]
GAP = [*HOURS[:5], "2020-01-01T05:00:00,", *HOURS[6:]]
WRONG = {
    "an empty npz": (lambda folder: (folder / "w.npz").write_bytes(b""), "must be an .npz file"),
    "a text as npz": (lambda folder: (folder / "w.npz").write_text("x"), "must be an .npz file"),
    "objects": (wrong_npz(labels=np.array([{}] * 20)), "npz file of plain arrays"),
    "no labels": (wrong_npz(labels=None), "must have an array labels"),
    "other names": (wrong_npz(extra=np.zeros(3)), "arrays must be called inputs, labels"),
    "no sequences": (wrong_npz(inputs=np.zeros((0, 5)), labels=np.zeros(0)), "must not be empty"),
    "fewer labels": (wrong_npz(labels=np.zeros(3)), "must have one length, got 20 and 3"),
    "one class": (wrong_npz(labels=np.zeros(20, int)), "labels must be of two classes or more"),
    "long lengths": (wrong_npz(lengths=np.full(20, 99)), "lengths must be in 1..20, got values"),
    "no lengths": (wrong_npz(lengths=np.zeros(20, int)), "lengths must be in 1..20"),
    "four axes": (wrong_npz(inputs=np.zeros((20, 2, 2, 2))), "must be of shape [n, L, c]"),
    "NaN": (wrong_npz(inputs=np.full((20, 5), np.nan)), "must be finite unless a mask"),
    "a short mask": (wrong_npz(mask=np.ones((20, 3), bool)), "mask must have shape"),
    "an empty ts": (wrong_ts(""), "must hold a case or more after @data"),
    "a ts of a header": (wrong_ts("@classLabel true a b\n@data\n"), "must hold a case or more"),
    "a ts without a header": (wrong_ts("1,2:a\n"), "line 1: the header must end with @data"),
    "a ts without labels": (wrong_ts("@data\n1,2:a\n1,3:b\n"), "@classLabel true or"),
    "a ts of words": (wrong_ts("@classLabel true a\n@data\nx,y:a\n"), "line 3: values must be"),
    "other channels": (
        wrong_ts("@classLabel true a b\n@data\n1,2:a\n1,2:3,4:b\n"),
        "must all have 1 channels as the first one has, got 2 in sequence 1",
    ),
    "odd dimensions": (
        wrong_ts("@classLabel true a b\n@data\n1,2:3:a\n"),
        "line 3: dimensions must be equally long",
    ),
    "an empty csv": (wrong_csv(""), "must be a CSV file with a line of names"),
    "a csv of names": (wrong_csv("time,x\n"), "must hold a row or more"),
    "no value": (
        wrong_ts("@classLabel true a\n@data\n?,?:a\n"),
        "line 3: a case must have a value",
    ),
    "times of words": (wrong_csv("time,x\nnow,1\nthen,2\n"), "column time must hold times"),
    "no times": (wrong_csv("a,b\n1,2\n3,4\n"), "time must name the column of times, or be rows"),
    "times that fall": (
        wrong_csv("time,x\n" + "\n".join([HOURS[1], HOURS[0], *HOURS[2:]])),
        "times must rise from row to row, got 2020-01-01 00:00:00 after 2020-01-01 01:00:00 in "
        "row 3",
    ),
    "no numbers": (wrong_csv("time,x\n2020-01-01,a\n2020-01-02,b\n"), "a column of numbers"),
    "an empty cell": (wrong_csv("time,x\n" + "\n".join(GAP)), "in row 7, column x"),
    "a short csv": (
        wrong_csv("time,x\n" + "\n".join(HOURS)),
        "at least window + horizon = 2 + 24",
    ),
    "one recording": (a_folder_of_wav("a_1.wav"), "labels must be of two classes or more"),
    "no sound": (
        lambda folder: (folder / "w.wav").write_bytes(b"RIFF"),
        "recordings must be in a folder",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_told_in_one_line(name, tmp_path):
    write, message = WRONG[name]
    write(tmp_path)
    (file,) = tmp_path.glob("w.*")
    with pytest.raises(ValueError, match="`task`") as error:
        load(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_recording_is_named(tmp_path):
    write_wav(tmp_path / "a_1.wav", 300)
    (tmp_path / "b_1.wav").write_bytes(b"RIFF0000WAVE")
    with pytest.raises(ValueError, match=r"b_1\.wav must be a WAV file"):
        load(tmp_path)


# splits


def test_sequences_are_padded_and_their_lengths_kept():
    sequences = [np.ones((3, 2)), np.ones((5, 2)), np.ones((1, 2))]
    split = Split.from_sequences(sequences, [0, 1, 0])
    assert split.inputs.shape == (3, 5, 2)
    assert split.lengths is not None
    assert split.lengths.tolist() == [3, 5, 1]
    assert split.inputs.sum() == 18
    steps = Split.from_sequences(
        [np.ones(2), np.ones(4)],
        [np.ones((2, 1)), np.full((4, 1), np.nan)],
        intervals=[np.ones(2), np.ones(4)],
        missing="mask",
    )
    assert steps.label_mask is not None
    assert steps.label_mask[..., 0].tolist() == [[True, True, False, False], [False] * 4]
    batch = steps.take(np.arange(2))
    assert np.isfinite(batch.labels).all()
    assert batch.intervals is not None


@pytest.mark.parametrize(
    ("sequences", "labels", "options", "message"),
    [
        ([], [], {}, "sequences must be one or more, got none"),
        ([np.ones((3, 2)), np.ones((3, 1))], [0, 1], {}, "channels as the first one has, got 1"),
        ([np.ones((3, 2)), np.ones((0, 2))], [0, 1], {}, "a step or more, got none in sequence 1"),
        ([np.ones(3)], [0, 1], {}, "labels must be one for each of 1 sequences, got 2"),
        ([np.ones(3)], [0], {"length": 2}, "at most length=2 steps, got 3"),
        ([np.array(["a"])], [0], {}, "sequences must be numbers"),
        ([np.array([np.nan])], [0], {}, "must be finite unless"),
        ([np.ones(3)], [0], {"intervals": [np.ones(2)]}, "intervals must be as long as"),
    ],
)
def test_sequences_that_are_wrong_are_refused(sequences, labels, options, message):
    with pytest.raises(ValueError, match=message):
        Split.from_sequences(sequences, labels, **options)


def test_every_class_is_in_every_split_if_there_are_three_of_it():
    labels = np.array([0] * 40 + [1] * 3, np.int32)
    split = Split(np.zeros((43, 2, 1), np.float32), labels)
    found = divided({"train": split}, Shares(0.1, 0.1, 0), classify=True)
    assert all(1 in part.labels for part in found.values())
    assert sum(len(part) for part in found.values()) == 43


def test_the_parquet_of_another_kind_is_refused(tmp_path):
    (tmp_path / "w.parquet").write_bytes(io.BytesIO(b"PAR1").getvalue())
    with pytest.raises(ValueError, match="must be a Parquet file"):
        load(tmp_path / "w.parquet")
