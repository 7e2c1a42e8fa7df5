"""Studies on a Dask cluster: a run whose worker is killed goes on elsewhere."""

import io
import os
import signal
import sys
import threading
import time
import warnings
from dataclasses import replace

import pytest
from rich.console import Console

from training.settings.errors import UsageError
from training.studies import RECORDS, Study, Variant, finished_runs
from training.studies.app import StudyCommand, execute_study
from training.studies.options import UNCOMPRESSED
from training.studies.runner import Job

STUDY = Study(
    name="spread",
    question="Does it run elsewhere?",
    model="lru",
    task="digits",
    reference="whole",
    options=UNCOMPRESSED,
    cpu={
        "steps": 3000,
        "layer.d-state": 8,
        "network.d-model": 4,
        "network.blocks": 1,
        "loop.evaluate-every": 1000,
        "loop.checkpoint-every": 500,
        "loop.log-every": 100,
    },
    seeds=1,
    variants=(Variant("whole"), Variant("small", {"layer.d-state": 4})),
)


@pytest.fixture
def distributed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("distributed", reason="needs the extra `cluster`")


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


@pytest.mark.parametrize(
    ("resume", "there", "expected"),
    [
        (True, [], "begin"),
        (True, ["config.yaml"], "resume"),
        (False, ["config.yaml"], "begin"),
        (False, [], "begin"),
    ],
)
def test_a_job_begins_or_resumes_as_its_folder_stands(tmp_path, resume, there, expected):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in there:
        (folder / name).touch()
    said = {name: ("-c", f"print({name!r})") for name in ("begin", "resume")}
    job = Job(folder, tmp_path / "said.txt", said["begin"], said["resume"] if resume else None)
    assert job.start().wait() == 0
    assert (tmp_path / "said.txt").read_text() == f"{expected}\n"
    assert folder.exists() == resume  # what cannot be resumed begins in an empty folder


def test_a_scheduler_that_does_not_answer_is_named(distributed, tmp_path, console, monkeypatch):
    monkeypatch.setattr("training.studies.cluster.PATIENCE", 0.5)
    command = StudyCommand(STUDY, out=tmp_path / "out", runs=tmp_path / "runs")
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(UsageError, match="--scheduler must be the address of a Dask scheduler"):
            execute_study(replace(command, scheduler=address), console)
    assert not (tmp_path / "out").exists()


def test_without_the_extra_the_message_says_what_to_install(tmp_path, console, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = StudyCommand(STUDY, out=tmp_path / "out", runs=tmp_path / "runs", scheduler="x:1")
    with pytest.raises(UsageError, match=r"extra `cluster`: pip install -e '\.\[cluster\]'"):
        execute_study(command, console)


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_goes_on_with_another(distributed, tmp_path, console):
    command = StudyCommand(STUDY, out=tmp_path / "out", runs=tmp_path / "runs")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        killer = threading.Thread(target=_kill_one, args=(client, tmp_path / "runs"))
        killer.start()
        outcome = execute_study(replace(command, scheduler=cluster.scheduler_address), console)
        killer.join()
    assert outcome.failed == {}
    assert list(finished_runs(tmp_path / "out" / RECORDS)) == ["small-seed0", "whole-seed0"]
    assert (tmp_path / "out" / "table.md").exists()


def _kill_one(client, runs):
    """Kill the worker of the first run that has saved a checkpoint."""
    while not any(runs.glob("*/checkpoints/*")):
        time.sleep(0.2)
    busy = next(address for address, tasks in client.processing().items() if tasks)
    os.kill(client.run(os.getpid, workers=[busy])[busy], signal.SIGKILL)
