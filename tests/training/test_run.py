"""Whole runs: what they leave behind, and that nothing can disturb them."""

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from rich.console import Console

from data import load_task
from training.commands.train import claimed, execute
from training.reporting.events import read_events
from training.run.checkpoint import Checkpoints
from training.run.clock import Clock
from training.run.interrupt import Diverged, Interrupt, Interrupted
from training.run.loop import Run
from training.settings.command import Command, parse_command
from training.settings.config import CompressionConfig, LoopConfig, NetworkConfig
from training.settings.errors import UsageError
from training.settings.presets import preset

pytestmark = pytest.mark.usefixtures("no_reports")

ROOT = Path(__file__).parents[2]


def small(model="lru", **changes):
    config = preset(model, "digits", "small")
    base = replace(
        config,
        steps=60,
        batch_size=16,
        layer=replace(config.layer, d_state=12),
        network=NetworkConfig(d_model=6, blocks=1, dropout=0.1, bidirectional=True),
        compression=CompressionConfig(
            tolerance=0.1, shrinks=2, window=0.5, multiple=4, rehearsal=2
        ),
        loop=LoopConfig(log_every=10, evaluate_every=20, checkpoint_every=10, steps_per_dispatch=4),
    )
    return replace(base, **changes)


def quiet():
    return Console(file=io.StringIO())


def run(config, folder, resume=False):
    return execute(Command(config, folder, resume), quiet())


def arrays(folder):
    """All arrays of the last checkpoint, by name."""
    from orbax.checkpoint import PyTreeCheckpointer

    step = Checkpoints(folder / "checkpoints").latest()
    return PyTreeCheckpointer().restore(folder / "checkpoints" / str(step) / "arrays")


def numbers(folder):
    """The events without what depends on the clock, or on the program that is at work."""
    clocks = {
        "alone",
        "width",
        "seconds",
        "duration",
        "steps_per_second",
        "plan_seconds",
        "compress_seconds",
    }
    events = [e for e in read_events(folder / "metrics.jsonl") if e["event"] not in SESSION]
    return [{k: v for k, v in event.items() if k not in clocks} for event in events]


SESSION = {"compile", "rehearsal", "takeover", "resume", "interrupt", "checkpoint"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed run."""
    return run(small(), tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_leaves_everything_behind(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "tensorboard",
        "report.html",
        "summary.json",
    }
    summary = json.loads((finished / "summary.json").read_text())
    assert 0 <= summary["test"]["accuracy"] <= 1
    assert summary["baselines"] == {"majority": 0.1}
    assert len(summary["layers"]) == 2
    for layer in summary["layers"]:
        assert layer["after"] < layer["before"] == 12
    assert summary["parameters_after"] < summary["parameters_before"]
    assert summary["seconds"]["total"] == pytest.approx(
        sum(v for k, v in summary["seconds"].items() if k != "total")
    )
    assert [phase["from_step"] for phase in summary["phases"]] == [
        0,
        *[phase["to_step"] for phase in summary["phases"][:-1]],
    ]
    assert yaml.safe_load((finished / "config.yaml").read_text())["seed"] == 0
    assert json.loads((finished / "environment.json").read_text())["versions"]["jax"]


def test_shrinks_happen_when_scheduled_and_say_whether_the_bound_holds(finished):
    """By data no bound is promised (`test_schedules.py` has the paper's method, where one is)."""
    shrinks = [e for e in read_events(finished / "metrics.jsonl") if e["event"] == "shrink"]
    assert [e["step"] for e in shrinks] == [15, 30]
    for layer in (layer for e in shrinks for layer in e["layers"]):
        if layer["after"] < layer["before"]:
            assert layer["sigma_next"] * (1 - 1e-6) <= layer["error"]
            assert layer["holds"] == (layer["error"] <= layer["bound"] * (1 + 1e-5))


def test_one_program_for_each_shape(finished):
    """Training compiles once at the start and once after every shrink that cut something."""
    events = read_events(finished / "metrics.jsonl")
    cuts = sum(
        any(layer["after"] < layer["before"] for layer in e["layers"])
        for e in events
        if e["event"] == "shrink"
    )
    compiled = [e for e in events if e["event"] == "compile" and e["what"] == "train step"]
    assert len(compiled) == 1 + cuts


@pytest.mark.parametrize("stop", [20, *(pytest.param(k, marks=pytest.mark.slow) for k in (7, 40))])
def test_an_interrupted_run_ends_like_an_undisturbed_one(finished, tmp_path, stop, monkeypatch):
    """Ctrl-C before the first shrink, between the two, and after both; bit for bit."""
    folder = tmp_path / "run"
    train_to = Run.train_to

    def interrupted(self, to, interrupt):
        if to > stop:
            signal.raise_signal(signal.SIGINT)
        return train_to(self, to, interrupt)

    monkeypatch.setattr(Run, "train_to", interrupted)
    with pytest.raises(Interrupted):
        run(small(), folder)
    assert read_events(folder / "metrics.jsonl")[-1]["event"] == "interrupt"
    monkeypatch.undo()
    run(small(), folder, resume=True)
    ours, theirs = arrays(folder), arrays(finished)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert numbers(folder) == numbers(finished)


@pytest.mark.parametrize(
    "markers",
    [['"step":20'], pytest.param(['"step":20', '"step":40'], marks=pytest.mark.slow)],
    ids=["once", "twice"],
)
def test_killed_at_any_moment(finished, tmp_path, markers):
    """SIGKILL as soon as a checkpoint or a shrink shows up; resumed each time, bit for bit."""
    folder = tmp_path / "run"
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    command = [sys.executable, str(ROOT / "scripts" / "train.py")]
    arguments = [*command, "--config", str(tmp_path / "config.yaml"), "--out", str(folder)]
    log = folder / "metrics.jsonl"
    for marker in markers:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not (log.exists() and marker in log.read_text()) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        alive = process.poll() is None
        process.kill()
        assert alive, process.communicate()[1].decode()
        process.communicate()
        arguments = [*command, "--resume", str(folder)]
    run(small(), folder, resume=True)
    ours, theirs = arrays(folder), arrays(finished)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert numbers(folder) == numbers(finished)


def test_logging_and_saving_do_not_change_what_is_learned(finished, tmp_path):
    loop = LoopConfig(log_every=7, evaluate_every=60, checkpoint_every=60, steps_per_dispatch=3)
    folder = run(small(loop=loop), tmp_path / "run")
    ours, theirs = arrays(folder), arrays(finished)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_the_seed_matters(finished, tmp_path):
    config = small(seed=1, steps=10, compression=CompressionConfig(mode="none"))
    folder = run(config, tmp_path / "run")
    first, other = (
        next(e for e in numbers(run) if e["event"] == "train") for run in (folder, finished)
    )
    assert first["loss"] != other["loss"]


@pytest.mark.parametrize(
    ("compression", "sizes"),
    [
        (CompressionConfig(mode="none"), [12, 12]),
        pytest.param(
            CompressionConfig(mode="fixed", rank=3, shrinks=2, window=0.5),
            [3, 3],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_modes(compression, sizes, tmp_path):
    folder = run(small(steps=20, compression=compression, model="s5", layer=S5), tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    assert [layer["after"] for layer in summary["layers"]] == sizes


S5 = replace(preset("s5", "digits", "small").layer, d_state=12)


def test_a_finished_run_is_left_alone(finished):
    before = (finished / "metrics.jsonl").read_text()
    assert run(small(), finished, resume=True) == finished
    assert (finished / "metrics.jsonl").read_text() == before


def test_an_existing_folder_is_not_overwritten(finished):
    with pytest.raises(UsageError, match=r"holds files; or continue with --resume"):
        run(small(), finished)


def test_a_run_in_progress_is_not_disturbed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("")
    with claimed(folder), pytest.raises(UsageError, match="in progress"):
        run(small(), folder, resume=True)


def test_bad_data_leaves_nothing_half_written(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match="data_dir"):
        run(small(data_dir=tmp_path), folder)
    with pytest.raises(UsageError, match=r"`batch_size` must be .* got 5000"):
        run(small(batch_size=5000), folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("model", "wrong", "message"),
    [
        ("lru", "--layer.r-max 1.0", "r_max"),
        ("s5", "--layer.step-min 1 --layer.step-max 0.1", "step_m"),
        ("mamba2", "--layer.headdim 48", "headdim"),
        (
            "mamba",
            "--compression.mode none --compression.method paper",
            "`compression.method` must be data .*got 'paper'",
        ),
        (
            "mamba",
            "--regularization.hankel 1e-3",
            "`regularization.hankel` must be 0 for .*got 0.001",
        ),
    ],
)
def test_what_makes_no_model_leaves_no_folder(model, wrong, message, tmp_path):
    folder = tmp_path / "run"
    line = f"--model {model} --task digits --out {folder} {wrong}"
    with pytest.raises(UsageError, match=message):
        execute(parse_command(line.split()), Console(file=io.StringIO()))
    assert not folder.exists()


def test_arrays_of_another_shape_are_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"a": np.zeros(3)}, {})
    checkpoints.close()
    with pytest.raises(
        ValueError, match=r"\['a'\] must have the shape \(4,\), was saved with \(3,\)"
    ):
        Checkpoints(tmp_path / "checkpoints").arrays(1, {"a": np.zeros(4)})


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "notes").write_text("")
    for folder in (tmp_path / "notes", tmp_path / "notes" / "run"):
        with pytest.raises(UsageError, match=r"notes is not a folder"):
            run(small(), folder)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    folder = tmp_path / "run"
    config = small(optimizer=replace(small().optimizer, learning_rate=1e30, schedule="constant"))
    with pytest.raises(Diverged, match=r"lower optimizer\.learning_rate|NaN"):
        run(config, folder)
    assert read_events(folder / "metrics.jsonl")


def test_a_state_that_is_no_number_is_not_saved(tmp_path):
    config = small()
    made = Run(config, load_task("digits"), tmp_path, Clock())
    state = made.state
    made.session.held.hold(state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params)))
    for act in (made.saves.save, made.report_spectra):
        with pytest.raises(Diverged, match=r"is not finite after step 0; .* from step None"):
            act()
    made.close()
    assert not made.saves.restore()


def test_interrupts_restore_what_was_there():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "line",
    [
        "--model foo",
        pytest.param("--compression.tolerance 2", marks=pytest.mark.slow),
        pytest.param("--task foo", marks=pytest.mark.slow),
    ],
)
def test_the_script_says_what_is_wrong_and_exits_with_2(line, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *line.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_programs_are_counted_by_jax_itself(tmp_path):
    """No compilation hides inside the loop: backend compilations stop once all shapes are known."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    config = small(steps=40, compression=CompressionConfig(mode="none"))
    run(config, tmp_path / "first")
    count = len(compiled)
    run(replace(config, steps=80), tmp_path / "second")
    longer = len(compiled) - count
    assert longer <= count
