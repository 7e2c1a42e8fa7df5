"""Several processes train together as one does alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from training.reporting.events import read_events
from training.run.placement import Placement
from training.settings.command import parse_command
from training.settings.errors import UsageError

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
OPTIONS = (
    *("--model", "lru", "--task", "digits", "--layer.d-state", "16", "--network.d-model", "8"),
    *("--network.blocks", "1", "--batch-size", "20"),
    *("--compression.mode", "tolerance", "--compression.tolerance", "0.1"),
    *("--compression.shrinks", "1", "--compression.window", "0.5", "--compression.multiple", "1"),
    *("--loop.log-every", "10", "--loop.evaluate-every", "20"),
    *("--loop.steps-per-dispatch", "5", "--loop.evaluation-batch", "64"),
)


def start(folder: Path, *options: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *OPTIONS, "--out", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )


def together(folder: Path, *options: str) -> list[subprocess.Popen]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = (*options, "--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process")
    return [start(folder, *common, str(k)) for k in range(2)]


def finish(processes: list[subprocess.Popen], code: int = 0) -> None:
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    steps = ("--steps", "40")
    finish([start(tmp_path / "one", *steps), *together(tmp_path / "two", *steps)])
    one, two = (read_events(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [e["event"] for e in one].count("shrink") == 1
    for kind in ("train", "eval", "shrink"):
        ours, theirs = ([e for e in events if e["event"] == kind] for events in (two, one))
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a["step"] == b["step"]
            if kind == "shrink":
                sizes = [[layer["after"] for layer in e["layers"]] for e in (a, b)]
                assert sizes[0] == sizes[1]
                assert sizes[0][0] < 16
            else:
                np.testing.assert_allclose(a["loss"], b["loss"], rtol=2e-3)
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_all_stop_when_one_is_asked_to_and_go_on_together(tmp_path):
    folder, many = tmp_path / "run", ("--steps", "400")
    processes = together(folder, *many)
    log = folder / "metrics.jsonl"
    for _ in range(600):
        if log.exists() and '"event":"train"' in log.read_text():
            break
        time.sleep(0.2)
    processes[1].send_signal(signal.SIGINT)
    finish(processes, 130)
    stopped = read_events(log)[-1]
    assert stopped["event"] == "interrupt"
    assert 0 < stopped["step"] < 400
    finish(together(folder, *many, "--resume", str(folder)))
    assert [e["step"] for e in read_events(log) if e["event"] == "resume"] == [stopped["step"]]
    assert (folder / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 1])
def test_the_others_end_with_one_line_when_a_process_is_gone(tmp_path, gone):
    folder = tmp_path / "run"
    processes = together(folder, "--steps", "1000000", "--compression.mode", "none")
    log = folder / "metrics.jsonl"
    for _ in range(600):
        if log.exists() and '"event":"train"' in log.read_text():
            break
        time.sleep(0.2)
    processes[gone].kill()
    processes[gone].communicate()
    said, _ = processes[1 - gone].communicate(timeout=60)
    assert processes[1 - gone].returncode == 1, said
    errors = [line for line in said.splitlines() if "error" in line]
    assert len(errors) == 1
    assert errors[0].startswith("error: another process of this run is gone (")
    assert f"--resume {folder}" in errors[0]
    assert not list(tmp_path.rglob("core*"))


@pytest.mark.slow
def test_processes_take_their_places_as_open_mpi_announces_them(tmp_path):
    job = 4096 * (os.getpid() % 4096)  # JAX derives the port of process 0 from it
    processes = [
        start(
            tmp_path / "run",
            *("--steps", "20", "--coordinator", "auto"),
            OMPI_MCA_orte_hnp_uri=f"{job}.0;tcp://127.0.0.1:1",
            OMPI_COMM_WORLD_SIZE="2",
            OMPI_COMM_WORLD_RANK=str(k),
            OMPI_COMM_WORLD_LOCAL_RANK=str(k),
        )
        for k in range(2)
    ]
    finish(processes)
    assert [e["event"] for e in read_events(tmp_path / "run" / "metrics.jsonl")].count("end") == 1


def test_one_process_moves_nothing():
    place, tree = Placement(), {"x": np.ones(3)}
    assert place.is_first
    assert place.outputs is None
    assert place.share(tree) is place.own(tree) is place.agree(tree) is tree
    assert not place.any(False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coordinator", "a:1"], "--coordinator HOST:PORT, --processes and --process go"),
        (["--processes", "2", "--process", "0"], "go together"),
        (
            ["--coordinator", "a:1", "--processes", "2", "--process", "2"],
            "--process must be 0 to 1 .*got 2",
        ),
        (["--coordinator", "auto"], "--out must be given"),
        (
            ["--coordinator", "a", "--processes", "2", "--process", "0"],
            "--coordinator must be HOST:PORT or auto, got 'a'",
        ),
    ],
)
def test_how_processes_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        parse_command(["--task", "digits", *options])
