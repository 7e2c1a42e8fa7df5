"""Tasks and presets that are registered outside of the project, and the files that do so."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

import data.registry
import training.settings.presets
from training.commands.cut import cut_run
from training.commands.train import execute
from training.commands.trained import restored_run
from training.reporting.events import read_events
from training.settings.command import parse_command
from training.settings.config import CompressionConfig
from training.settings.errors import UsageError
from training.settings.plugins import import_plugins
from training.settings.presets import SCALES, Preset, preset, preset_rows, register_preset
from training.settings.saved import read_config

SIGNS = '''
"""Is the sum of a sequence positive?"""

from dataclasses import dataclass

import numpy as np

from data import Split, Task, register_task


@dataclass(frozen=True)
class SignsConfig:
    length: int = 12
    """Samples."""


def load_signs(config, places):
    rng = np.random.default_rng(0)

    def split(n):
        inputs = rng.standard_normal((n, config.length, 1), np.float32)
        return Split(inputs, (inputs.sum((1, 2)) > 0).astype(np.int32))

    splits = {"train": split(64), "validation": split(16), "test": split(16)}
    return Task(
        name="NAME", kind="classification", length=config.length, splits=splits,
        input_kind="real", input_size=1, classes=2,
    )


register_task("NAME", SignsConfig, load_signs)
'''


@pytest.fixture
def registries():
    """What a test registers is gone after it."""
    presets = training.settings.presets._PRESETS
    registries = [data.registry._ENTRIES, *presets.values()]
    before = [dict(each) for each in registries]
    yield
    for each, old in zip(registries, before, strict=True):
        each.clear()
        each.update(old)


@pytest.fixture
def signs(tmp_path, registries):
    """A file that registers a task of its own name."""
    name = f"signs-{abs(hash(tmp_path)) % 10**8}"
    file = tmp_path / "my_task.py"
    file.write_text(SIGNS.replace("NAME", name))
    return name, file


SMALL = (
    *("--steps", "20", "--batch-size", "8", "--layer.d-state", "6", "--network.d-model", "4"),
    *("--loop.log-every", "10", "--loop.evaluate-every", "20", "--loop.evaluation-batch", "8"),
    *("--compression.calibration", "8", "--compression.mode", "fixed", "--compression.rank", "3"),
    *("--compression.shrinks", "1", "--compression.window", "0.5"),
    *("--compression.rehearsal", "0", "--model", "lru"),
)


def quiet():
    return Console(file=io.StringIO())


@pytest.mark.usefixtures("no_reports")
def test_a_task_of_the_users_trains_resumes_and_is_cut(signs, tmp_path, monkeypatch):
    name, file = signs
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    given = ("--plugin", "my_task.py", "--task", name, "--data.length", "10", "--out", str(folder))
    command = parse_command([*given, *SMALL])
    assert command.config.plugins == (str(file),)
    assert command.config.data.length == 10
    execute(command, quiet())
    monkeypatch.chdir(tmp_path.parent)
    again = parse_command(["--resume", str(folder)])
    assert again.config == command.config == read_config(folder)
    assert parse_command(["--resume", str(folder), "--plugin", str(file)]).config == again.config
    task = data.registry.load_task(name, again.config.data)
    run = restored_run(folder, task)
    assert (run.step, run.session.sizes) == (20, [3])
    compression = CompressionConfig(mode="fixed", rank=2, calibration=8)
    cut_run(folder, task, tmp_path / "cut", compression)
    assert read_config(tmp_path / "cut").plugins == again.config.plugins
    assert [e["task"] for e in read_events(folder / "metrics.jsonl") if e["event"] == "start"] == [
        name
    ]


def test_a_resumed_run_has_no_other_plugins(signs, tmp_path):
    name, file = signs
    other = tmp_path / "other.py"
    other.write_text("")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"task: {name}\nplugins: [{file}]\n")
    with pytest.raises(UsageError, match=r"--plugin .*other\.py, but the run to .* has .*my_task"):
        parse_command(["--resume", str(folder), "--plugin", str(other)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0", r"--plugin .*wrong\.py failed: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "failed: SystemExit: 3"),
        ("(", "failed: SyntaxError"),
        (SIGNS.replace("NAME", "digits"), "failed: ValueError: `name` must be new, got 'digits'"),
    ],
)
def test_a_plugin_that_fails_is_told_in_one_line(content, message, tmp_path, registries):
    file = tmp_path / "wrong.py"
    file.write_text(content)
    for _ in range(2):
        with pytest.raises(UsageError, match=message) as error:
            parse_command(["--plugin", str(file)])
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/at/all.py", "nowhere/at/all.py: there is no such file"),
        ("no_such.module", "failed: ModuleNotFoundError: No module named 'no_such'"),
    ],
)
def test_a_plugin_that_is_missing_is_told(name, message):
    with pytest.raises(UsageError, match=message):
        parse_command(["--plugin", name])


def test_a_module_may_be_a_plugin_too():
    assert import_plugins(["json.tool", "json.tool"]) == ("json.tool",)


def test_a_task_without_presets_starts_as_a_small_one(signs):
    name, file = signs
    import_plugins([str(file)])
    for scale in SCALES:
        config = preset("lru", name, scale)
        assert config.network.norm == "layer"
        assert config.steps == preset("lru", "imdb", "small").steps
    assert name in {row[0] for row in preset_rows()[1]}


def test_a_task_may_bring_its_preset(signs):
    name, file = signs
    import_plugins([str(file)])
    like = preset("lru", "digits", "small")
    mine = Preset(
        steps=77,
        batch_size=4,
        d_state=5,
        network=like.network,
        optimizer=like.optimizer,
        compression=like.compression,
        loop=like.loop,
        data={"length": 9},
    )
    register_preset(name, "small", mine)
    config = preset("s5", name, "small")
    assert (config.steps, config.layer.d_state, config.data.length) == (77, 5, 9)
    assert preset("s5", name, "paper").steps != 77
    with pytest.raises(ValueError, match="must have no preset at scale small yet"):
        register_preset(name, "small", mine)
    with pytest.raises(ValueError, match="`task` must be one of"):
        register_preset("nothing", "small", mine)
    with pytest.raises(TypeError, match="colour"):
        register_preset(name, "paper", replace(mine, data={"colour": 1}))
