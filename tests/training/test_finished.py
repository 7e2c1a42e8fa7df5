"""What comes out of a run: the model in one value, which needs no data."""

import io
import json
import shutil
from dataclasses import replace

import equinox as eqx
import jax
import numpy as np
import pytest
from rich.console import Console

from compress import Rank
from data import load_task
from data.readers.series import SeriesConfig
from training import load_run
from training.commands.predict import predictions, read_inputs, write_predictions
from training.commands.train import execute
from training.finished.kept_task import blank_task, describe_task
from training.finished.load import trained_run
from training.model.network import build_model
from training.settings.command import Command
from training.settings.errors import UsageError

pytestmark = pytest.mark.usefixtures("no_reports")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small):
    """A run directory of digits, batch norm and all, whose layers have shrunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.commands.train.write_report", lambda folder: folder)
        folder = tmp_path_factory.mktemp("runs") / "digits"
        return execute(Command(small(), folder, False), Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def digits():
    return load_task("digits")


RNG = np.random.default_rng(0)
LENGTHS = np.array([9, 4, 1], np.int32)
REAL = RNG.normal(size=(3, 9, 2)).astype(np.float32)
TOKENS = RNG.integers(0, 5, (3, 9)).astype(np.int32)
KINDS = ("classification", "regression", "pair", "language")


def test_a_loaded_run_says_what_the_run_itself_measured(finished, digits):
    test, summary = digits.splits["test"], json.loads((finished / "summary.json").read_text())
    assert load_run(finished).score(test) == summary["best"]["test"]
    run = load_run(finished, at="last")
    assert run.score(test) == summary["test"]
    right = run.predict(test.inputs).argmax(-1) == test.labels
    assert np.float32(right.sum()) / len(right) == summary["test"]["accuracy"]
    assert [layer["after"] for layer in summary["layers"]] == [4, 4]
    assert {block.ssm.d_state for block in run.model.blocks} == {4}


def test_a_saved_model_is_loaded_again_as_it_was(finished, digits, tmp_path):
    run, inputs = load_run(finished), digits.splits["test"].inputs[:5]
    again = load_run(run.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.predict(inputs), run.predict(inputs))
    assert (again.config, again.summary, again.batch) == (run.config, run.summary, run.batch)
    with pytest.raises(ValueError, match="folder must be a new or an empty folder"):
        run.save(tmp_path / "model")


def test_a_plan_of_a_loaded_run_cuts_it(finished, digits):
    run, inputs = load_run(finished), digits.splits["train"].inputs[:8]
    whole = run.predict(inputs)
    for given in ({}, {"inputs": inputs}):
        smaller = run.compressed(run.plan(Rank(3), **given))
        assert {block.ssm.d_state for block in smaller.model.blocks} == {3}
        assert smaller.predict(inputs).shape == whole.shape
    same = run.compressed(run.plan(Rank(4)))
    np.testing.assert_allclose(same.predict(inputs), whole, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_of_a_task_makes_the_same_model(kind, made):
    run = made(kind, norm="layer")
    kept = json.loads(json.dumps(describe_task(run.task)))
    blank = blank_task(kept)
    assert describe_task(blank) | {"sequences": None} == kept | {"sequences": None}
    model, state = build_model(run.config, blank)
    assert jax.tree.structure(model) == jax.tree.structure(run.model)
    split = run.task.splits["test"]
    loaded = replace(run, task=blank, state=state)
    np.testing.assert_array_equal(
        loaded.predict(split.inputs, split.lengths), run.predict(split.inputs, split.lengths)
    )


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_stream_ends_where_the_whole_sequence_does(kind, norm, made):
    run = made(kind, norm=norm)
    if norm == "batch":  # statistics that are none of a beginning
        run = replace(run, state=jax.tree.map(lambda x: x + 1, run.state))
    split = run.task.splits["test"]
    whole = run.predict(split.inputs, split.lengths)
    stream = run.stream()
    for sequence, length, outputs in zip(split.inputs, split.lengths, whole, strict=True):
        carry = stream.init_state()
        for t in range(length):
            carry, y = stream.step(carry, sequence[t])
            if kind == "regression":
                np.testing.assert_allclose(y, outputs[t], atol=2e-6)
        if kind == "classification":
            np.testing.assert_allclose(y, outputs, atol=2e-6)


@pytest.mark.parametrize("model", ["s5", "mamba", "gla"])
def test_a_stream_of_irregular_times_is_told_of_them(model, made):
    run = made("timed", model, norm="layer")
    split = run.task.splits["test"]
    whole = run.predict(split.inputs, split.lengths, split.intervals)
    stream, carry = run.stream(), run.stream().init_state()
    for sample, interval in zip(split.inputs[0], split.intervals[0], strict=True):
        carry, y = stream.step(carry, sample, interval)
    np.testing.assert_allclose(y, whole[0], atol=2e-6)
    with pytest.raises(ValueError, match="`interval` must be the time before the sample, got None"):
        stream.step(carry, split.inputs[0, 0])
    with pytest.raises(ValueError, match="`interval` must be None for this task, got 1"):
        made("classification").stream().step(carry, split.inputs[0, 0], 1.0)


def test_layers_that_know_no_time_are_refused_before_a_run_begins(made):
    with pytest.raises(ValueError, match=r"layers must advance by intervals .*got a DeltaNet"):
        made("timed", "deltanet")


def test_a_language_model_streams_token_by_token(made):
    run = made("language", norm="rms")
    text = run.task.splits["test"].inputs[:1]
    stream, whole = run.stream(), run.predict(text)[0]
    carry = stream.init_state()
    for token, outputs in zip(text[0], whole, strict=True):
        carry, y = stream.step(carry, token)
        np.testing.assert_allclose(y, outputs, atol=2e-6)


def test_models_that_see_the_future_do_not_stream(made):
    with pytest.raises(ValueError, match="Bidirectional"):
        made("classification", bidirectional=True).stream()
    with pytest.raises(ValueError, match="a PairClassifier cannot stream"):
        made("pair").stream()


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("classification", {"inputs": REAL[0]}, r"`inputs` must be numbers \[n length 2\]"),
        ("classification", {"inputs": REAL[:, :, :1]}, r"got an array of shape \(3, 9, 1\)"),
        ("classification", {"inputs": REAL[:0]}, "must hold a sequence"),
        ("classification", {"inputs": REAL, "lengths": LENGTHS[:2]}, "`lengths` must be whole"),
        ("classification", {"inputs": REAL, "lengths": LENGTHS + 1}, r"lengths must be in 1\.\.9"),
        ("classification", {"inputs": REAL, "intervals": REAL[:, :, 0]}, "must be None for this"),
        ("classification", {"inputs": REAL * 1j}, "must be real numbers"),
        ("language", {"inputs": TOKENS + 1}, "tokens from 0 to 4, got 1 to 5"),
        ("language", {"inputs": TOKENS, "lengths": LENGTHS}, "must be None for a language"),
    ],
)
def test_inputs_that_do_not_fit_are_named(kind, given, message, made):
    with pytest.raises(ValueError, match=message):
        made(kind, norm="layer").predict(**given)


def test_what_is_missing_or_damaged_is_said(finished, tmp_path):
    with pytest.raises(UsageError, match="is not a finished run"):
        load_run(tmp_path)
    model = load_run(finished).save(tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"no")
    with pytest.raises(UsageError, match=r"model\.safetensors cannot be read"):
        load_run(model)
    (model / "run.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="must be of format 1, got 99"):
        load_run(model)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", "{", r"summary\.json must be as a run has written it, got"),
        ("summary.json", "[]", r"summary\.json must be as a run has written it, got: a list"),
        ("task.json", "{}", r"task\.json must be as a run has written it, got"),
        ("task.json", '{"task": 1, "split": 2, "sequence": 3}', r"task\.json must be as a run"),
        ("best/*/metadata/metadata", "{}", r"best/\d+ must be as a run has written it, got: KeyE"),
        ("best/*/metadata/metadata", "", r"best/\d+ must be as a run has written it, got"),
    ],
)
def test_files_of_a_run_that_somebody_has_changed_are_named(
    file, content, message, finished, tmp_path
):
    run = shutil.copytree(finished, tmp_path / "run")
    (damaged,) = run.glob(file)
    damaged.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        load_run(run)
    assert "\n" not in str(error.value)


def test_predictions_are_written_as_arrays_and_as_a_table(tmp_path, made):
    run, data = made("classification"), tmp_path / "new.npz"
    np.savez(data, inputs=REAL, lengths=LENGTHS)
    found = predictions(run, read_inputs(data, run))
    np.testing.assert_allclose(found["probabilities"].sum(-1), 1, rtol=1e-6)
    write_predictions(tmp_path / "out.npz", found)
    with np.load(tmp_path / "out.npz") as saved:
        np.testing.assert_array_equal(saved["labels"], found["labels"])
    write_predictions(tmp_path / "out.csv", found)
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "sequence,label,p0,p1,p2"
    assert len(rows) == 4
    values = predictions(made("regression"), read_inputs(data, run))
    write_predictions(tmp_path / "values.csv", values, LENGTHS)
    assert len((tmp_path / "values.csv").read_text().splitlines()) == 1 + LENGTHS.sum()
    np.savez(data, other=REAL)
    with pytest.raises(UsageError, match="must hold `inputs`, got other"):
        read_inputs(data, run)


def test_a_fixed_norm_leaves_the_model_as_it_is_at_inference(finished, digits):
    from zoo import fixed_norms

    run = load_run(finished)
    fixed = fixed_norms(run.model, run.state)
    x = digits.splits["test"].take(np.arange(1)).inputs[0]
    whole = eqx.nn.inference_mode(run.model)(x, run.state)[0]
    np.testing.assert_allclose(fixed(x, eqx.nn.State(fixed))[0], whole, atol=1e-6)


def test_sequences_of_the_user_are_read_as_those_of_the_training(tmp_path, made):
    run, file = made("classification"), tmp_path / "new.ts"
    lines = ["@classLabel true a b", "@data", "1,2,3:4,5,?:a", "1,2:3,4:b"]
    file.write_text("\n".join(lines))
    found = read_inputs(file, run)
    assert found["lengths"].tolist() == [3, 2]
    np.testing.assert_array_equal(found["inputs"][0], [[1, 4], [2, 5], [3, np.nan]])
    np.testing.assert_array_equal(found["inputs"][1], [[1, 3], [2, 4], [0, 0]])
    np.save(tmp_path / "one.npy", REAL)
    np.testing.assert_array_equal(read_inputs(tmp_path / "one.npy", run)["inputs"], REAL)
    with pytest.raises(UsageError, match=r"must be a file of \.npz"):
        read_inputs(tmp_path / "new.bin", run)


@pytest.mark.parametrize("recent", [0, 5])
def test_a_series_is_forecast_in_its_own_units(recent, tmp_path, small):
    """Also where its columns stand in another order, and beside others."""
    hours, table = np.arange(400), tmp_path / "load.csv"
    load, heat = 500 + 40 * np.sin(hours / 4), 3 + np.cos(hours / 4)

    def write(file, names, *columns):
        lines = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
        file.write_text("\n".join([",".join(names), *lines]) + "\n")

    write(table, ["hour", "load", "heat"], hours, load, heat)
    task = load_task(str(table), SeriesConfig(window=12, horizon=2, targets=("load",)))
    config = replace(small("s5", "pendulum"), data=SeriesConfig(window=12, horizon=2))
    config = replace(config, network=replace(config.network, recent=recent))
    run = trained_run(config, task, *build_model(config, task), {})
    write(tmp_path / "new.csv", ["heat", "more", "hour", "load"], heat, heat, hours, load)
    kept = blank_task(json.loads(json.dumps(describe_task(task))))
    options = SeriesConfig(time="hour", window=12, horizon=2)
    for about, data in ((task, config.data), (kept, options)):
        again = replace(run, task=about, config=replace(config, data=data))
        found = predictions(again, read_inputs(tmp_path / "new.csv", again))
        assert found["outputs"].shape == (400 - 11, 2)
        assert abs(found["outputs"].mean() - 500) < 40
        raw = run.predict(task.splits["test"].inputs[:2])[:, -1]
        np.testing.assert_allclose(found["outputs"][320 - 12 :][:2], raw, rtol=1e-5)
        scaled = predictions(again, read_inputs(table, again), scaled=True)["outputs"]
        mean, deviation = load[:280].mean(), load[:280].std()
        np.testing.assert_allclose(found["outputs"], mean + deviation * scaled, rtol=1e-4)
    write_predictions(tmp_path / "out.csv", found, task=task)
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert (rows[0], rows[1].split(",")[0], len(rows)) == ("time,load+1,load+2", "11", 390)
    stream = run.stream()
    carry = stream.init_state()
    for sample in np.stack([load, heat], -1)[:12].astype(np.float32):
        carry, y = stream.step(carry, sample)
    np.testing.assert_allclose(y, found["outputs"][0], rtol=1e-5)
    write(table, ["hour", "load"], hours, load)
    with pytest.raises(UsageError, match=r"the columns of the training must be among .* got heat"):
        read_inputs(table, run)
    write(table, ["hour", "load", "heat"], hours[:5], load[:5], heat[:5])
    with pytest.raises(UsageError, match="must have 12 rows or more"):
        read_inputs(table, run)


def test_text_is_read_in_pieces_as_long_as_those_of_the_training(tmp_path, made):
    run, file = made("language", norm="rms"), tmp_path / "new.txt"
    file.write_text("to be or not to be")
    with pytest.raises(UsageError, match="must be read as the 5 tokens of the training, got 256"):
        read_inputs(file, run)
    run = replace(run, task=replace(run.task, symbols=None))
    assert read_inputs(file, run)["inputs"].tolist() == [list(b"to be or "), list(b"not to be")]
    file.write_text("to be")
    assert read_inputs(file, run)["inputs"].shape == (1, 5)
    with pytest.raises(UsageError, match="must hold numbers for a model of real inputs, got text"):
        read_inputs(file, made("classification"))
    (tmp_path / "new.csv").write_text("time,a\n1,2\n")
    with pytest.raises(UsageError, match="another file for a model of no series, got CSV"):
        read_inputs(tmp_path / "new.csv", run)


def test_a_table_of_classes_calls_them_by_their_names(tmp_path, made):
    run = made("classification")
    task = replace(run.task, output_names=("a", "b, or c", "d"))
    found = predictions(run, {"inputs": REAL})
    found["labels"] = np.array([0, 1, 2])
    write_predictions(tmp_path / "out.csv", found, task=task)
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == 'sequence,label,p(a),"p(b, or c)",p(d)'
    assert rows[2].startswith('1,"b, or c",')


def test_a_table_has_a_row_for_each_sequence_with_values_or_labels(tmp_path):
    for found, first in (
        ({"outputs": np.array([[0.5, 1.5]])}, "0,0.5,1.5"),
        ({"outputs": np.array([[-2.0, 2.0]]), "labels": np.array([[0, 1]])}, "0,0,1"),
    ):
        write_predictions(tmp_path / "out.csv", found)
        rows = (tmp_path / "out.csv").read_text().splitlines()
        assert rows == ["sequence,y0,y1", first]
