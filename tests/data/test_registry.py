"""Tasks by name, and the digits."""

import importlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import data
from data import (
    TASKS,
    AANConfig,
    CharLMConfig,
    DigitsConfig,
    IMDBConfig,
    ListOpsConfig,
    PathfinderConfig,
    PathXConfig,
    PendulumConfig,
    SCIFARConfig,
    default_cache_dir,
    load_task,
)
from data.store.builder import AbstractTaskBuilder

ROOT = Path(__file__).parents[2]


def test_unknown_names_are_answered_with_the_known_ones():
    names = "smnist, scifar, listops, imdb, aan, pathfinder, pathx, digits, charlm, pendulum, mqar"
    with pytest.raises(
        ValueError, match=f"`task` must be one of {names}, got 'mnist': did you mean 'smnist'"
    ):
        load_task("mnist")


def test_a_config_of_another_task_is_refused():
    with pytest.raises(ValueError, match="`config` of task digits must be a DigitsConfig"):
        load_task("digits", PathfinderConfig())


@pytest.mark.parametrize("name", TASKS)
def test_configs_have_defaults_and_documented_fields(name):
    config_class = TASKS[name].config_class
    assert config_class() == config_class()


def test_digits_are_the_real_ones():
    task = load_task("digits")
    assert (task.length, task.input_size, task.classes) == (64, 1, 10)
    sizes = {name: len(split) for name, split in task.splits.items()}
    assert sizes == {"train": 1297, "validation": 200, "test": 300}
    for split in task.splits.values():
        inputs, labels, *_ = split.take(np.arange(len(split)))
        assert inputs.min() == 0
        assert inputs.max() == 1
        share = np.bincount(labels, minlength=10) / len(labels)
        assert np.all(np.abs(share - 0.1) < 0.015)
    rows = np.concatenate([split.inputs[..., 0] for split in task.splits.values()])
    from sklearn.datasets import load_digits

    assert np.array_equal(
        np.unique(rows, axis=0), np.unique(load_digits().data.astype(np.uint8), axis=0)
    )


def test_digits_depend_on_the_seed_alone():
    first, again, other = (
        load_task("digits", DigitsConfig(seed=seed)).splits["test"].inputs for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_other_digits_than_the_known_ones_are_refused(monkeypatch, cache):
    import sklearn.datasets

    def other(return_X_y):
        return np.zeros((1797, 64)), np.zeros(1797)

    monkeypatch.setattr(sklearn.datasets, "load_digits", other)
    with pytest.raises(ValueError, match="digits must have the SHA-256"):
        load_task("digits")
    assert not list(cache.rglob("dataset_info.json"))


def test_every_task_is_a_builder_with_a_version_and_a_citation():
    for path in (Path(data.__file__).parent / "builtin").glob("*/builder.py"):
        importlib.import_module(f"data.builtin.{path.parent.name}.builder")
    ours = [c for c in AbstractTaskBuilder.__subclasses__() if c.__module__.startswith("data.")]
    assert {c.name.replace("_", "") for c in ours} == set(TASKS) - {
        "pathx"
    }  # which is Pathfinder, larger
    for builder_class in ours:
        assert str(builder_class.VERSION) in builder_class.RELEASE_NOTES
        assert re.search(r"(19|20)\d\d", builder_class.CITATION)
        assert builder_class.HOMEPAGE.startswith("http")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: DigitsConfig(test=1700), r"validation \+ test must leave at least 10"),
        (lambda: DigitsConfig(validation=3), "validation must be at least 10, got 3"),
        (lambda: DigitsConfig(seed=-1), "seed must not be negative, got -1"),
        (lambda: PathfinderConfig(contour_length=15), "contour_length must be between 2 and 14"),
        (
            lambda: PathfinderConfig(resolution=16, contour_length=6),
            "contour_length must be between 2 and 5 at resolution 16, got 6",
        ),
        (lambda: PathfinderConfig(train=0), "train must be at least 1, got 0"),
        (lambda: PathfinderConfig(workers=0), "workers must be at least 1 or None, got 0"),
        (lambda: PathfinderConfig(seed=-2), "seed must not be negative, got -2"),
        (lambda: PathXConfig(contour_length=1), "contour_length must be between 2 and 14"),
        (lambda: SCIFARConfig(validation=1.0), r"validation must be in \(0, 1\), got 1.0"),
        (lambda: IMDBConfig(length=0), "length must be at least 1, got 0"),
        (lambda: IMDBConfig(validation=-1), "validation must not be negative, got -1"),
        (lambda: ListOpsConfig(max_args=1), "max_args must be at least 2, got 1"),
        (lambda: ListOpsConfig(max_depth=99), "max_depth must be between 2 and 20, got 99"),
        (lambda: ListOpsConfig(min_length=1995), "min_length must be between 0 and .*= 1990"),
        (lambda: AANConfig(source="generated", length=9), "length must be at least 100, got 9"),
        (lambda: AANConfig(test=0), "test must be at least 1, got 0"),
        (lambda: AANConfig(topics=1), "topics must be at least 2, got 1"),
        (lambda: AANConfig(topical=0.0), "topical must be above 0 and at most 1, got 0.0"),
        (lambda: PendulumConfig(samples=101), "samples must be between 2 and 100, got 101"),
        (lambda: PendulumConfig(seed=2**32), r"seed must be in \[0, 2\*\*32\), got 4294967296"),
        (lambda: IMDBConfig(length=10**12), "length must be below 2147483648, got 10{12}"),
        (lambda: ListOpsConfig(train=2**31), "train must be below 2147483648, got 2147483648"),
        (lambda: CharLMConfig(length=0), "length must be at least 1, got 0"),
        (lambda: CharLMConfig(test=0.5), r"test must be in \(0, 0.5\), got 0.5"),
    ],
)
def test_bad_configs_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        config()


def test_builders_are_imported_when_asked_for():
    """A live display must not run meanwhile: etils replaces `builtins.__import__` for a moment."""
    imported = "print('tensorflow_datasets' in sys.modules)"
    program = f"import sys, data; {imported}; data.import_builders(); {imported}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_digits_take_no_folder(tmp_path):
    with pytest.raises(ValueError, match="data_dir must be left out for the task digits"):
        load_task("digits", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"COMPRESSM_ZOO_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/compressm-zoo"),
        ({}, "/home/somebody/.cache/compressm-zoo"),
    ],
)
def test_where_prepared_data_is_kept(monkeypatch, environment, want):
    for name in ("COMPRESSM_ZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(want)


@dataclass(frozen=True)
class _Config:
    size: int = 3


@dataclass(frozen=True)
class _NoDefault:
    size: int


@pytest.fixture
def registry():
    """What a test registers is gone after it."""
    before = dict(data.registry._ENTRIES)
    yield
    data.registry._ENTRIES.clear()
    data.registry._ENTRIES.update(before)


@pytest.mark.usefixtures("registry")
def test_a_registered_task_is_loaded_like_others():
    made, task = [], data.load_task("digits")

    def load(config, places):
        made.append((config, places))
        return task

    data.register_task("my-task", _Config, load)
    assert "my-task" in data.TASKS
    data.load_task("my-task")
    data.load_task("my-task", _Config(4))
    assert [config for config, _ in made] == [_Config(3), _Config(4)]
    with pytest.raises(ValueError, match="`name` must be new, got 'my-task'"):
        data.register_task("my-task", _Config, print)


def test_the_view_of_the_tasks_is_read_only():
    with pytest.raises(TypeError):
        data.TASKS["mine"] = data.TASKS["digits"]  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("digits", _Config, print), ValueError, "`name` must be new, got 'digits'"),
        (("My Task", _Config, print), ValueError, "`name` must be small letters"),
        ((3, _Config, print), ValueError, "`name` must be .*, got 3"),
        (("mine", dict, print), TypeError, "`config_class` must be a dataclass"),
        (("mine", _Config(), print), TypeError, "`config_class` must be a dataclass"),
        (("mine", _NoDefault, print), TypeError, r"got _NoDefault\.size without one"),
        (("mine", _Config, None), TypeError, "`load` must be a function"),
    ],
)
def test_what_is_no_task_is_not_registered(arguments, error, message):
    with pytest.raises(error, match=message):
        data.register_task(*arguments)
    assert "mine" not in data.TASKS
