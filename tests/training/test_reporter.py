"""The order of a run's events while a shrink's errors are measured."""

import time
from dataclasses import replace
from threading import Event

import pytest

from training.reporting.events import read_events
from training.run.clock import Clock
from training.run.reporter import Reporter
from training.run.shrink_report import ShrinkReport
from training.settings.config import LoopConfig

from .test_run import numbers, run, small


class Saved:
    """Checkpoints that note what is saved."""

    def __init__(self, log):
        self.log = log

    def save(self, step, state, metadata):
        self.log.append(("saved", step))

    def wait(self):
        pass


class Log(list):
    """A sink."""

    def write(self, event):
        self.append((event["event"], event["step"]))


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def measured():
    """Set when the errors of the shrink are measured; set at the end, so that no thread stays."""
    event = Event()
    yield event
    event.set()


def reporter(log, measured, **options):
    made = Reporter(Saved(log), Clock(), **options)
    made.sinks = [log]
    made.late = ShrinkReport(100, lambda: measured.wait() and [])
    made.late.saved = None, {}
    return made


def test_training_waits_for_the_report_of_a_shrink_in_the_log_alone(log, measured):
    made = reporter(log, measured)
    made.emit("train", 150)
    made.emit("train", 200)
    assert not log
    measured.set()
    made.emit("eval", 200)
    assert log == [
        ("shrink", 100),
        ("saved", 100),
        ("checkpoint", 100),
        ("train", 150),
        ("train", 200),
        ("eval", 200),
    ]


def test_a_report_that_is_ready_is_written_before_the_next_event(log, measured):
    made = reporter(log, measured)
    measured.set()
    while not made.late.is_ready:
        time.sleep(0.01)
    made.emit("train", 150)
    assert log == [("shrink", 100), ("saved", 100), ("checkpoint", 100), ("train", 150)]


def test_what_is_held_back_is_written_at_the_end(log, measured):
    made = reporter(log, measured)
    made.emit("train", 150)
    measured.set()
    made.finish()
    made.finish()
    assert log == [("shrink", 100), ("saved", 100), ("checkpoint", 100), ("train", 150)]


def test_processes_that_train_together_wait(log, measured):
    made = reporter(log, measured, holds_back=False)
    measured.set()
    made.emit("train", 150)
    assert log[-1] == ("train", 150)
    assert made.late is None


def test_the_log_is_the_same_however_long_errors_take_to_measure(tmp_path, monkeypatch, no_reports):
    """Training alone is between the shrinks after steps 3 and 6, and a checkpoint at step 8, before
    smaller programs are ready."""
    loop = LoopConfig(log_every=4, evaluate_every=100, checkpoint_every=8, steps_per_dispatch=1)
    cuts = replace(small().compression, shrinks=2, window=0.06, multiple=1, rehearsal=5)
    config, logs, saved = small(steps=100, loop=loop, compression=cuts), [], []
    for is_ready in (True, False):
        monkeypatch.setattr(ShrinkReport, "is_ready", is_ready)
        folder = run(config, tmp_path / str(is_ready))
        logs.append(numbers(folder))
        events = read_events(folder / "metrics.jsonl")
        saved.append([e["step"] for e in events if e["event"] == "checkpoint"])
    assert logs[0] == logs[1]
    assert saved[0] == saved[1] == [3, 6, *range(8, 100, 8), 100]
    assert [e["step"] for e in logs[0] if e["event"] == "shrink"] == [3, 6]
