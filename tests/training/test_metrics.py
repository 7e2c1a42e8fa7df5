"""Laws of the event log: what is written is read back, whatever interrupts the writing."""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.reporting.events import (
    EventLog,
    Sink,
    read_events,
    truncate_after,
    write_atomically,
)
from training.reporting.trackers import TensorBoardMirror


def train(step, **extra):
    return {"event": "train", "step": step, "loss": 1 / (1 + step), "d_state": [64, 64], **extra}


def evaluation(step):
    return {"event": "eval", "step": step, "split": "validation", "loss": 0.5, "accuracy": 0.75}


def history(steps):
    events = [{"event": "start", "step": 0, "layers": [{"path": "blocks[0].ssm", "d_state": 64}]}]
    for step in steps:
        events.append(train(step))
        if step % 20 == 0:
            events += [evaluation(step), {"event": "checkpoint", "step": step}]
    return events


def write_all(path, events, append=False):
    log = EventLog(path, append=append)
    for event in events:
        log.write(event)
    log.close()


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    events = [*history(range(10, 101, 10)), {"event": "end", "step": 100, "note": "späte\nZeile"}]
    write_all(path, events)
    assert read_events(path) == events
    assert path.read_bytes().count(b"\n") == len(events)


def test_every_line_is_on_disk_before_write_returns(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = EventLog(path, append=False)
    for step in range(5):
        log.write(train(step))
        assert read_events(path)[-1]["step"] == step
    log.close()
    log.close()


def test_numbers_keep_their_digits_and_numpy_becomes_plain(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sigma = np.geomspace(1, 1e-300, 7)
    event = train(
        np.int32(3), loss=np.float32(0.1), rate=0.1 + 0.2, cut=np.bool_(True), sigma=sigma
    )
    write_all(path, [event])
    (read,) = read_events(path)
    assert read["step"] == 3
    assert read["cut"] is True
    assert np.float32(read["loss"]) == np.float32(0.1)
    assert read["rate"] == 0.1 + 0.2
    assert read["sigma"] == sigma.tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_numbers_json_lacks_are_null(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    write_all(path, [train(1, loss=value, layers=[{"sigma": np.array([1.0, value])}])])

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read["loss"] is None
    assert read["layers"][0]["sigma"] == [1.0, None]


@pytest.mark.parametrize(
    ("event", "error", "message"),
    [
        ({"step": 1}, ValueError, "'event'"),
        ({"event": "train"}, ValueError, "'step'.*None"),
        ({"event": "train", "step": 1.5}, ValueError, "'step'.*1.5"),
        (
            train(1, layers=[{"model": object()}]),
            TypeError,
            r"train\.layers\[0\]\.model must be a number, .* got a object",
        ),
    ],
)
def test_a_bad_event_is_refused_and_leaves_no_trace(tmp_path, event, error, message):
    path = tmp_path / "metrics.jsonl"
    log = EventLog(path, append=False)
    log.write(train(1))
    with pytest.raises(error, match=message):
        log.write(event)
    log.close()
    assert read_events(path) == [train(1)]


def test_a_new_log_replaces_and_an_appended_one_continues(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_all(path, [train(1)], append=True)  # the file need not be there
    write_all(path, [train(2)], append=True)
    assert [event["step"] for event in read_events(path)] == [1, 2]
    write_all(path, [train(9)], append=False)
    assert [event["step"] for event in read_events(path)] == [9]


def test_cut_off_at_any_byte_the_log_reads_and_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    events = history([10, 20])
    write_all(path, events)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        survivors = read_events(path)
        assert survivors == events[: len(survivors)]
        assert len(survivors) >= whole[:length].count(b"\n")
        write_all(path, [train(99)], append=True)
        assert read_events(path) == [*survivors, train(99)]


@pytest.mark.parametrize(
    "bad", [b'{"event": "train", "st', b"\xff\xfe", b"[1, 2]", b'{"event": "train"}', b""]
)
def test_corruption_elsewhere_names_file_and_line(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    write_all(path, history([10, 20]))
    lines = path.read_bytes().split(b"\n")
    lines[2] = bad
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 3"):
        read_events(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="line 3"):
        truncate_after(path, 10)
    assert path.read_bytes() == before


def test_what_followed_the_checkpoint_at_its_own_step_is_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    before = history(range(10, 41, 10))
    after = [
        {"event": "compile", "step": 40, "seconds": 1.0, "what": "train step"},
        {"event": "interrupt", "step": 40},
    ]
    write_all(path, [*before, *after])
    truncate_after(path, 40)
    assert read_events(path) == before
    # Killed between the checkpoint and its event: there is nothing to drop.
    write_all(path, before[:-1])
    truncate_after(path, 40)
    assert read_events(path) == before[:-1]


@pytest.mark.parametrize("checkpoint", [20, 40, 100])
@pytest.mark.parametrize("tail", [b"", b'{"event":"train","step":7'])
def test_a_resumed_log_is_the_log_of_an_undisturbed_run(tmp_path, checkpoint, tail):
    undisturbed, path = tmp_path / "whole.jsonl", tmp_path / "metrics.jsonl"
    write_all(undisturbed, history(range(10, 101, 10)))
    write_all(path, history(range(10, 71, 10)) if checkpoint < 70 else history(range(10, 101, 10)))
    with open(path, "ab") as file:
        file.write(tail)
    truncate_after(path, checkpoint)
    rest = [event for event in history(range(10, 101, 10)) if event["step"] > checkpoint]
    write_all(path, rest, append=True)
    assert path.read_bytes() == undisturbed.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "whole.jsonl"]


def test_a_failed_replacement_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "report.html"
    write_atomically(path, "old")

    def chunks():
        yield b"new, but "
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, chunks())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_a_log_that_reads(tmp_path):
    path = tmp_path / "metrics.jsonl"
    program = (
        "import sys; from training.reporting.events import EventLog\n"
        "log = EventLog(sys.argv[1], append=False)\n"
        "step = 0\n"
        "while True:\n"
        "    log.write({'event': 'train', 'step': step, 'sigma': [0.1] * 500}); step += 1\n"
        "    if step == 50: print(flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    steps = [event["step"] for event in read_events(path)]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 50


def test_tensorboard_repeats_the_scalars(tmp_path):
    mirror = TensorBoardMirror(tmp_path)
    assert isinstance(mirror, Sink)
    for event in [*history([10, 20]), train(30, loss=None), {"event": "end", "step": 30}]:
        mirror.write(event)
    mirror.write(
        {"event": "shrink", "step": 30, "layers": [{"path": "blocks[0].ssm", "after": 40}]}
    )
    mirror.close()
    mirror.close()

    scalars = {}
    for tag, step, value in read_scalars(tmp_path):
        scalars.setdefault(tag, {})[step] = value
    assert scalars["train/loss"] == pytest.approx({10: 1 / 11, 20: 1 / 21})
    assert scalars["validation/accuracy"] == {20: 0.75}
    (state,) = (tag for tag in scalars if tag.startswith("state/blocks"))
    assert scalars[state] == {0: 64, 10: 64, 20: 64, 30: 40}


def read_scalars(directory):
    """(tag, step, value) of every scalar in the event files: records of length, crc, bytes, crc."""
    message_type = importlib.import_module("tensorboardX.proto.event_pb2").Event
    for file in sorted(directory.iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            size = int.from_bytes(content[at : at + 8], "little")
            message = message_type.FromString(content[at + 12 : at + 12 + size])
            at += 16 + size
            for value in message.summary.value:
                yield value.tag, message.step, value.simple_value
