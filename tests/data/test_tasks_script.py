"""scripts/tasks.py: once as a process of its own, else by its `main`, which is quicker."""

import contextlib
import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "tasks.py"


def in_a_process(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("tasks_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def run(main, monkeypatch):
    """A function that runs the script with these arguments, as in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        out, error = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = main(list(arguments))
            except SystemExit as ended:
                code = ended.code
        return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), error.getvalue())

    return run


def test_inspect_shows_splits_labels_and_a_picture(tmp_path):
    picture = tmp_path / "sheet.png"
    done = in_a_process("inspect", "digits", "--test", "250", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    for text in (
        "digits (classification): 64 steps of 1 channels, 10 classes",
        "1347",
        "200",
        "250",
        "majority",
    ):
        assert text in done.stdout
    with Image.open(picture) as sheet:
        assert sheet.width > 700


def test_prepare_makes_the_data(run, tmp_path):
    options = [
        "--resolution",
        "16",
        "--contour-length",
        "2",
        "--train",
        "60",
        "--validation",
        "20",
        "--test",
        "20",
    ]
    done = run("prepare", "pathfinder", *options, "--cache-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "60 train, 20 validation, 20 test" in done.stdout
    assert list(tmp_path.rglob("dataset_info.json"))


def test_inspect_tells_of_lengths_and_tokens(run, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abab cdcd\n" * 300)
    done = run("inspect", "charlm", "--text", str(path), "--length", "20")
    assert done.returncode == 0, done.stderr
    for text in ("charlm (language): 20 steps of 6 tokens", "'a' 20.0%, 'b'", "bits per token"):
        assert text in " ".join(done.stdout.split())
    options = ["--source", "generated", "--length", "200", "--train", "20", "--test", "10"]
    done = run("inspect", "aan", *options)
    assert done.returncode == 0, done.stderr
    for text in ("aan (generated) (pair): 200 steps", "10 10", "median", "not those of AAN"):
        assert text in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "mnist"), "`task` must be one of smnist"),
        (("inspect", "pathfinder", "--contour-length", "99"), "contour_length must be between"),
        (("inspect", "pathfinder", "--colour", "red"), "error: unknown option --colour"),
        (
            ("inspect", "digits", "--tset", "9"),
            "unknown option --tset, did you mean --test?",
        ),
        (("inspect", "digits", "--test", "x"), "error: `test` must be a whole number, got 'x'"),
        (("inspct", "digits"), "got 'inspct': did you mean 'inspect'?"),
        (("inspect", "digits", "--cache-dir", "/proc/nope"), "--cache-dir /proc/nope cannot be"),
        (("prepare", "pathfinder", "--data-dir", "/dev"), "error: no Pathfinder metadata"),
        (("prepare", "digits", "--data-dir", "/nowhere"), "error: data_dir must be left out"),
        (("prepare", "imdb", "--data-dir", "/nowhere"), "error: data_dir /nowhere does not exist"),
        (("inspect", "aan", "--data-dir", "/dev"), "error: /dev has no new_aan_pairs"),
        ((), "usage"),
    ],
)
def test_bad_arguments_end_with_code_2(run, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_data_of_the_users_can_be_looked_at(run, tmp_path):
    import numpy as np

    inputs = np.random.default_rng(0).normal(size=(40, 6, 2))
    np.savez(tmp_path / "own.npz", inputs=inputs, labels=inputs.sum((1, 2)))
    said = run("inspect", str(tmp_path / "own.npz"), "--test", "0.25").stdout
    assert "own (values): 6 steps of 2 channels, 1 values" in said
    assert "test mean squared error of ridge alone" in said
