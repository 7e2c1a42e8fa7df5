"""Runs on data of the user's own: they are named once, and known again wherever they are needed."""

import importlib.util
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

import training
from data import Split, Task, fingerprint, task_label
from data.readers.divide import SPLITS
from data.readers.forecast import forecast_task
from data.readers.stored import StoredConfig
from training.commands.cut import cut_run
from training.commands.data import load_data
from training.commands.train import execute
from training.model.network import check_model
from training.reporting.classes import classes_section
from training.reporting.history import History
from training.run.interrupt import Interrupt, Interrupted
from training.settings.command import parse_command
from training.settings.config import CompressionConfig
from training.settings.errors import UsageError
from training.settings.presets import preset
from training.settings.saved import complete, read_config
from training.settings.tuned import SAMPLES, describe_settings, tuned
from training.settings.yaml import write_yaml

SCRIPT = importlib.util.spec_from_file_location(
    "train_script", Path(__file__).parents[2] / "scripts" / "train.py"
)
assert SCRIPT is not None
assert SCRIPT.loader is not None
script = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(script)

SIGNS = """
import numpy as np

from data import Split, Task


def signs(length: int = 12, bias: float = 0.0):
    rng = np.random.default_rng(0)

    def split(n):
        inputs = rng.standard_normal((n, length, 1), np.float32)
        return Split(inputs, (inputs.sum((1, 2)) > bias).astype(np.int32))

    splits = {"train": split(64), "validation": split(16), "test": split(16)}
    return Task("signs", length, "real", 1, splits, classes=2)


def broken(length: int = 12):
    raise RuntimeError("no such\\ndata")


def odd(length: int = 12):
    return {"inputs": length}


def demanding(length):
    return signs(length)


class NotThere:
    pass
"""

SMALL = (
    *("--steps", "20", "--batch-size", "8", "--layer.d-state", "6", "--network.d-model", "4"),
    *("--network.blocks", "1", "--compression.start", "0"),
    *("--loop.log-every", "10", "--loop.evaluate-every", "20", "--loop.evaluation-batch", "8"),
    *("--compression.calibration", "8", "--compression.mode", "fixed", "--compression.rank", "3"),
    *("--compression.shrinks", "1", "--compression.window", "0.5"),
    *("--compression.rehearsal", "0", "--model", "lru"),
)


def quiet():
    return Console(file=io.StringIO())


@pytest.fixture
def signs(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(SIGNS)
    return file


class Stopped(Interrupt):
    """Ctrl-C at the first step."""

    def __init__(self, *given):
        super().__init__(*given)
        self.requested = True


def arrays(tmp_path, seed=0, n=96):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((n, 12, 2)).astype(np.float32)
    labels = np.where(inputs[..., 0].sum(1) > 0, "up", "down")
    np.savez(tmp_path / "ups.npz", inputs=inputs, labels=labels)
    return tmp_path / "ups.npz"


@pytest.mark.usefixtures("no_reports")
def test_a_function_is_trained_on_resumed_and_cut(signs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    command = parse_command(
        ["--task", "own.py:signs", "--data.length", "10", "--out", str(folder), *SMALL]
    )
    assert command.config.task == f"{signs}:signs"
    assert command.config.data.length == 10
    said = quiet()
    execute(command, said)
    assert "settings by the size of the data" in said.file.getvalue()
    monkeypatch.chdir(tmp_path.parent)
    again = parse_command(["--resume", str(folder)])
    assert again.config == read_config(folder)
    assert again.config.data.length == 10
    assert again.config.layer.d_state == 6
    task = load_data(again.config)
    assert (task.name, task.length) == ("signs", 10)
    cut = CompressionConfig(mode="fixed", rank=2, calibration=8)
    summary = cut_run(folder, task, tmp_path / "cut", cut)
    assert summary["task"] == "signs"
    assert json.loads((tmp_path / "cut" / "data.json").read_text())["task"] == f"{signs}:signs"


@pytest.mark.usefixtures("no_reports")
def test_other_data_under_the_same_name_are_refused(tmp_path):
    file, folder = arrays(tmp_path), tmp_path / "run"
    command = parse_command(["--task", str(file), "--out", str(folder), *SMALL])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.commands.train.Interrupt", Stopped)
        with pytest.raises(Interrupted):
            execute(command, quiet())
    arrays(tmp_path, seed=1)
    other = load_data(command.config)
    said = "must be the data that the run began with, got other data under the name ups"
    with pytest.raises(UsageError, match=said):
        execute(parse_command(["--resume", str(folder)]), quiet())
    with pytest.raises(UsageError, match=said):
        cut_run(folder, other, tmp_path / "cut", CompressionConfig(mode="fixed", rank=2))
    assert not (tmp_path / "cut").exists()
    arrays(tmp_path)
    assert execute(parse_command(["--resume", str(folder)]), quiet()) == folder
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["output_names"] == ["down", "up"]
    assert np.sum(summary["tables"]["test"]) == len(load_data(command.config).splits["test"])
    assert {"accuracy", "macro_f1"} < set(summary["test"])


def test_the_options_of_the_user_win_over_the_rule(tmp_path):
    file = arrays(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text(f"task: {file}\nsteps: 77\nnetwork: {{blocks: 3}}\n")
    command = parse_command(["--config", str(config), "--network.d-model", "16"])
    assert command.settle is not None
    settled = command.settle(load_data(command.config))
    assert (settled.steps, settled.network.blocks, settled.network.d_model) == (77, 3, 16)
    assert settled.batch_size == 8  # by the rule
    assert parse_command(["--task", "digits"]).settle is None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("own.py:broken", "failed: RuntimeError: no such data"),
        ("own.py:odd", "must return a data.Task, got dict"),
        ("own.py:demanding", "must have a default for every option, got `length`"),
        ("own.py:nothing", "must have a function nothing, got None"),
        ("elsewhere.py:f", "there is no file"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("wrong.py:f", "cannot be imported: SyntaxError"),
        ("./nowhere.npz", "there is no such file or folder"),
        ("empty", "must be, or hold, files of one of"),
        ("own.py", "must be, or hold, files of one of"),
        ("nowhere", "or your own data: package.module:function"),
    ],
)
def test_what_is_wrong_with_a_name_is_told_in_one_line(task, message, signs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.py").write_text("(")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as error:
        execute(parse_command(["--task", task, "--out", "out"]), quiet())
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


# in one line of Python


def made(n: int = 96) -> Task:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((n, 12, 1), np.float32)
    split = Split(inputs, (inputs.sum((1, 2)) > 0).astype(np.int32))
    parts = {"train": slice(0, 64), "validation": slice(64, 80), "test": slice(80, n)}
    return Task("made", 12, "real", 1, {k: split.select(v) for k, v in parts.items()}, classes=2)


FEW = {
    "steps": 10,
    "batch_size": 8,
    "layer": {"d_state": 6},
    "network": {"d_model": 4, "blocks": 1},
    "compression": {"mode": "none", "calibration": 8},
    "loop": {"evaluate_every": 10, "evaluation_batch": 8},
}


@pytest.mark.usefixtures("no_reports")
def test_a_task_in_memory_is_fitted_and_kept_with_its_run(tmp_path):
    task = made()
    run = training.fit(task, model="lru", out=tmp_path / "run", console=quiet(), **FEW)
    assert run.task is task
    assert run.config.steps == 10
    again = parse_command(["--resume", str(tmp_path / "run")])
    assert fingerprint(load_data(again.config)) == fingerprint(task)
    cut = CompressionConfig(mode="fixed", rank=2, calibration=8)
    cut_run(tmp_path / "run", load_data(again.config), tmp_path / "cut", cut)
    assert run.score(task.splits["test"]) == pytest.approx(dict(run.summary["test"]))


@pytest.mark.usefixtures("no_reports")
def test_a_run_can_be_used_when_its_data_are_gone(tmp_path):
    file = arrays(tmp_path)
    run = training.fit(file, model="lru", out=tmp_path / "run", console=quiet(), **FEW)
    file.unlink()
    again = training.load_run(tmp_path / "run")
    inputs = np.zeros((3, 12, 2), np.float32)
    np.testing.assert_array_equal(again.predict(inputs), run.predict(inputs))
    assert again.config.data.validation == 0.15
    with pytest.raises(UsageError, match="there is no such file or folder"):
        parse_command(["--resume", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepps": 3}, "unknown key stepps, did you mean steps?"),
        ({"steps": 0}, "`steps` must be 1 or more, got 0"),
        ({"batch_size": 999}, "`batch_size` must be at most 64"),
        ({"model": "transformer"}, "must be one of"),
        ({"compression": {"tolerance": 0.1}}, "`compression.tolerance` must be left out"),
        ({"compression": {"mode": "auto", "share": 0.2}}, "`compression.share` must be left out"),
    ],
)
def test_what_is_wrong_with_a_fit_is_told_before_it_begins(settings, message, tmp_path):
    with pytest.raises(ValueError, match=r"must|unknown") as error:
        training.fit(made(), out=tmp_path / "run", console=quiet(), **settings)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("classification", ["<th>true class</th>", "<th>b</th>", ">7</td>"]),
        ("multilabel", ["<th>label</th>", "false negatives", ">7</td>"]),
    ],
)
def test_the_report_says_what_was_taken_for_what(kind, said):
    counts = [[7, 0], [1, 3]] if kind == "classification" else [[7, 0, 1, 2], [1, 3, 0, 0]]
    summary = {"kind": kind, "tables": {"test": counts}, "output_names": ["a", "b"]}
    page = classes_section(History([], summary))
    assert all(text in page.replace(' class="n"', "") for text in said)
    assert classes_section(History([], {"kind": "values"})) == ""


@pytest.mark.parametrize(
    "name", ["w.npz", "w.csv", "w.ts", "w.txt", "wavs/a.wav", "tfds:some/thing:1.0.0"]
)
def test_options_of_every_format_come_back_from_a_file(name, tmp_path):
    task = name
    if not name.startswith("tfds:"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        task = str(tmp_path / name.partition("/")[0])
    config = parse_command(["--task", task, "--data.test", "0.3"]).config
    assert config.task == task
    assert complete(yaml.safe_load(write_yaml(config))) == config
    assert task_label(task) in ("w", "wavs", "some-thing-1.0.0")


@pytest.mark.parametrize("model", ["s5", "lru", "mamba"])
@pytest.mark.parametrize(("n", "length"), [(20, 5), (300, 30), (3000, 60), (500, 20_000)])
def test_the_rule_gives_settings_for_every_size(model, n, length):
    inputs = np.broadcast_to(np.zeros(1, np.float32), (n, length, 3))
    split = Split(inputs, np.arange(n, dtype=np.int32) % 2)
    task = Task("t", length, "real", 3, dict.fromkeys(SPLITS, split), classes=2)
    config = preset(model, "t.npz", "small", tuned(task, model), data=StoredConfig())
    check_model(config, task)
    assert config.batch_size <= n
    assert config.steps * config.batch_size * length <= max(2 * SAMPLES, 200 * 4 * length)
    assert config.loop.evaluate_every < config.steps
    assert config.compression.mode == "auto"


@pytest.mark.parametrize("missing", [False, True])
def test_the_rule_for_forecasts_is_linear_and_follows_the_level(missing):
    values = np.random.default_rng(0).normal(size=(900, 2)).astype(np.float32)
    values[5, 0] = np.nan if missing else 0
    task = forecast_task("t", values, ("a", "b"), ("a",), window=70, horizon=3)
    config = preset("s5", "t.npz", "small", tuned(task, "s5"), data=StoredConfig())
    check_model(config, task)
    assert (config.network.gate, config.network.recent) == ("linear", 0 if missing else 10)
    options = describe_settings(config, task)[1]
    assert "--network.gate linear" in options
    assert options.endswith("--compression.mode auto --compression.loss 0.005")
    assert ("--network.recent 10" in options) != missing
    asked = replace(config, network=replace(config.network, recent=3))
    if missing:
        with pytest.raises(
            ValueError, match=r"`network\.recent` must be 0 .* may be missing, got 3"
        ):
            check_model(asked, task)
    else:
        check_model(asked, task)


WRONG = {
    "empty.csv": b"",
    "falls.csv": b"time,x\n2020-01-02,1\n2020-01-01,2\n",
    "empty.ts": b"@classLabel true a b\n@data\n",
    "odd.ts": b"@classLabel true a b\n@data\n1,2:a\n1,2:3,4:b\n",
    "empty.npz": b"",
    "empty.txt": b"",
}


@pytest.mark.parametrize("name", WRONG)
def test_the_command_ends_with_code_2_and_one_line(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.run.interrupt.stop_on_sigterm", lambda: None)
    (tmp_path / name).write_bytes(WRONG[name])
    out = tmp_path / "out"
    assert script.main(["--task", str(tmp_path / name), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: `task`")
    assert said.count("\n") == 1
    assert not out.exists()
