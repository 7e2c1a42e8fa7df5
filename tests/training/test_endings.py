"""How a run ends before its end: asked to stop, on a full disk, left by another process."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from rich.console import Console

from data.store.download import locked
from training.commands.train import claimed, execute
from training.reporting.events import EventLog, read_events
from training.run.checkpoint import Checkpoints, SaveError
from training.run.compilation import missing_kernels
from training.run.interrupt import Interrupt, Interrupted, Stopped
from training.run.placement import check_devices
from training.run.programs import Programs
from training.run.together import PeerLost, _client, alert
from training.settings.command import Command
from training.settings.config import CompressionConfig, LoopConfig, NetworkConfig
from training.settings.errors import UsageError
from training.settings.presets import preset

pytestmark = pytest.mark.usefixtures("no_reports")

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"


@pytest.fixture(scope="module")
def config():
    base = preset("lru", "digits", "small")
    return replace(
        base,
        steps=12,
        batch_size=8,
        layer=replace(base.layer, d_state=6),
        network=NetworkConfig(d_model=4, blocks=1),
        compression=CompressionConfig(mode="none"),
        loop=LoopConfig(log_every=4, evaluate_every=12, checkpoint_every=4, steps_per_dispatch=4),
    )


def run(config, folder, resume=False):
    console = Console(file=io.StringIO(), width=200)
    execute(Command(config, folder, resume), console)
    return console.file.getvalue()


def test_a_stop_does_not_wait_for_the_compiler(config, tmp_path, monkeypatch):
    """The state is saved as it is, and the run goes on from there."""
    folder, make, endless = tmp_path / "run", Programs.make, threading.Event()

    def slow(self, what, function, args, wait=lambda work: work()):
        if what != "train step":
            return make(self, what, function, args)

        def compile_forever():
            os.kill(os.getpid(), signal.SIGTERM)
            endless.wait()

        return wait(compile_forever), 0.0

    monkeypatch.setattr(Programs, "make", slow)
    with pytest.raises(Interrupted) as stop:
        run(config, folder)
    monkeypatch.undo()
    endless.set()
    assert (stop.value.step, stop.value.number) == (0, signal.SIGTERM)
    kinds = [event["event"] for event in read_events(folder / "metrics.jsonl")]
    assert kinds[-2:] == ["checkpoint", "interrupt"]
    monkeypatch.setattr("training.commands.train.write_report", lambda folder: folder)
    run(config, folder, resume=True)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["phases"][-1]["to_step"] == 12


def test_waiting_gives_what_the_work_gives():
    with Interrupt() as interrupt:
        assert interrupt.wait(lambda: 3) == 3
        with pytest.raises(KeyError):
            interrupt.wait(lambda: {}["x"])
        interrupt.requested = True
        with pytest.raises(Stopped):
            interrupt.wait(threading.Event().wait)


STUCK = """
import signal, sys, time
from training.run.interrupt import Interrupt
with Interrupt(lambda: print("expired", flush=True), grace=0.5):
    print("ready", flush=True)
    {what}
"""


@pytest.mark.parametrize(
    "what",
    [
        "while True: pass",
        "import ctypes; ctypes.CDLL(None).pause()\n    ctypes.CDLL(None).sleep(60)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, []); [time.sleep(60) for _ in range(9)]",
    ],
    ids=["python", "outside-python", "sleeping"],
)
def test_sigterm_ends_a_process_that_is_stuck(what):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(what=what)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said == "expired\n"


def test_a_checkpoint_is_reported_when_it_is_on_the_disk(config, tmp_path, monkeypatch):
    """Also where writing it takes long: until then there is no line about it."""
    written, begin, wait = [], Checkpoints.save, Checkpoints.wait
    log = tmp_path / "run" / "metrics.jsonl"

    def save(self, step, arrays, metadata):
        begin(self, step, arrays, metadata)
        assert step not in [e["step"] for e in read_events(log) if e["event"] == "checkpoint"]

    def waited(self):
        wait(self)
        written.append(self.latest())

    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr(Checkpoints, "wait", waited)
    monkeypatch.setattr("training.commands.train.write_report", lambda folder: folder)
    run(config, tmp_path / "run")
    events = read_events(log)
    assert [e["step"] for e in events if e["event"] == "checkpoint"] == [4, 8, 12]
    assert written[:3] == [4, 8, 12]
    assert events[-1]["event"] == "end"


@pytest.mark.parametrize("failing", [1, 2, 3], ids=["first", "second", "last"])
def test_a_checkpoint_that_cannot_be_written_leaves_those_before(
    config, tmp_path, monkeypatch, failing
):
    """The disk is full: an error with the step, and what is complete can be read."""
    from orbax.checkpoint import CheckpointManager

    folder, wait, step = tmp_path / "run", CheckpointManager.wait_until_finished, 4 * failing

    def full(self):
        wait(self)
        if self.latest_step() == step:
            self.delete(step)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(CheckpointManager, "wait_until_finished", full)
    with pytest.raises(SaveError) as error:
        run(config, folder)
    monkeypatch.undo()
    said = str(error.value)
    assert f"the checkpoint of step {step} could not be written to {folder}" in said
    assert "No space left on device" in said
    assert "\n" not in said
    reported = [
        e["step"] for e in read_events(folder / "metrics.jsonl") if e["event"] == "checkpoint"
    ]
    assert reported == [4, 8, 12][: failing - 1]
    assert Checkpoints(folder / "checkpoints").latest() == (reported[-1] if reported else None)
    monkeypatch.setattr("training.commands.train.write_report", lambda folder: folder)
    run(config, folder, resume=True)
    assert (folder / "summary.json").exists()


def test_a_log_that_cannot_be_written_is_an_error_of_the_system(config, tmp_path, monkeypatch):
    def full(self, event):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventLog, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run(config, tmp_path / "run")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_exit_code_1(tmp_path):
    """A limit on the size of files stands for the disk: only the arrays go beyond it."""
    folder = tmp_path / "run"
    options = "--model lru --task digits --steps 8 --loop.checkpoint-every 4 --layer.d-state 512"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 200; exec {sys.executable} {SCRIPT} {options} --out {folder}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: the checkpoint of step 4 could not be written")
    assert len(done.stderr.splitlines()) == 1
    assert "checkpoint saved" not in done.stdout


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_lock_is_a_plain_file_or_an_error(tmp_path, kind):
    """What a link names is not touched."""
    lock, other = tmp_path / "metrics.jsonl.lock", tmp_path / "other"
    other.write_text("dear")
    match kind:
        case "link":
            lock.symlink_to(other)
        case "folder":
            lock.mkdir()
        case "pipe":
            os.mkfifo(lock)
    with (
        pytest.raises(UsageError, match=r"metrics.jsonl.lock must be a plain file"),
        claimed(tmp_path),
    ):
        pass
    assert other.read_text() == "dear"


def test_a_lock_keeps_what_is_in_it(tmp_path):
    (tmp_path / "a.lock").write_text("note")
    with locked(tmp_path / "a"):
        pass
    assert (tmp_path / "a.lock").read_text() == "note"


@pytest.mark.parametrize("kind", [ValueError, jax.errors.JaxRuntimeError])
def test_another_process_that_is_gone_is_named(monkeypatch, kind):
    def fail(said):
        with alert("elsewhere"), alert("runs/x"):
            raise kind(said)

    said = "UNKNOWN: Gloo AllGather failed:\nConnection closed by peer"
    with pytest.raises(kind, match="UNKNOWN"):
        fail(said)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(PeerLost, match=r"is gone \(UNKNOWN.*--resume runs/x") as error:
        fail(said)
    assert "\n" not in str(error.value)
    with pytest.raises(kind, match="must be"):
        fail("`rank` must be 1 or more")
    monkeypatch.setattr(jax, "process_count", lambda: 1 / 0)  # without devices it cannot be asked
    with pytest.raises(UsageError, match="HOST:PORT"), alert("runs/x"):
        raise UsageError("--coordinator must be HOST:PORT")


DYING = """
import ctypes, threading
from training.run import together
set_terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt13set_terminatePFvvE"]
set_terminate(together._LOST)
terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt9terminatev"]
threading.Thread(target=terminate).start()
threading.Event().wait()
"""


def test_an_end_from_outside_python_is_one_line():
    """As JAX's coordinator makes one when a process is gone: no stack, no core file."""
    done = subprocess.run(
        [sys.executable, "-c", DYING],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: another process of this run is gone: continue")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (RuntimeError("Unable to initialize backend 'cuda':\nno device"), "Unable"),
        (AssertionError(), "JAX has no plugin for them"),
    ],
)
def test_devices_that_are_not_there_are_named(fault, why, monkeypatch):
    def none():
        raise fault

    check_devices()
    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UsageError, match=rf"JAX_PLATFORMS must name .*got cuda \({why}") as error:
        check_devices()
    assert "\n" not in str(error.value)


def test_kernels_that_are_missing_are_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr("training.run.compilation.compiled", lambda: True)
    assert missing_kernels() is None
    monkeypatch.setattr("training.run.compilation.compiled", lambda: False)
    said = missing_kernels()
    assert said is not None
    assert "install a C++ compiler" in said
    assert "\n" not in said


def test_a_jax_whose_client_takes_no_callback_keeps_its_own():
    def of_now(address, *, missed_heartbeat_callback=None):
        return address, missed_heartbeat_callback is not None

    assert _client(of_now, "host:1") == ("host:1", True)
    assert _client(lambda address: (address, False), "host:1") == ("host:1", False)
