"""Runs of a study as processes of the training script, several at once. Finished runs are not
repeated."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from ..reporting.events import read_events, write_atomically
from ..settings.errors import UsageError
from ..settings.yaml import plain_config, read_yaml, write_yaml
from .record import finished_runs, keep_record, make_record
from .study import Planned, comparable, run_name

SCRIPTS = Path(__file__).parents[2] / "scripts"

Report = Callable[[str, Any], None]
"""`report(what, run)`: "started", "finished" or "failed", and the `Active` run; and ("running",
None) from time to time, for displays of the runs' progress."""


SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Environment variables for processes that share a GPU's memory."""

QUICKLY_COMPILED = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
"""Flags of XLA that choose kernels for matrix products by rule. XLA's default search takes up to
half a minute for a training step, and every shrink needs a new one."""


@dataclass(frozen=True)
class Job:
    """The command of a run, and its files."""

    folder: Path
    """The run directory."""
    output: Path
    """The file that takes what the command prints."""
    begin: tuple[str, ...]
    """A script and its arguments."""
    resume: tuple[str, ...] | None = None
    """The command to resume a stopped run; None: it begins again, in an empty folder."""

    def start(
        self, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start it as a process, as its folder needs it now; `env` and `cwd` as for `Popen`."""
        arguments = self.begin
        if self.resume is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif (self.folder / "config.yaml").exists():
            arguments = self.resume
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches it through us, once
                env=env,
                cwd=cwd,
            )


@runtime_checkable
class Process(Protocol):
    """A run in progress, local or remote: the needed part of the interface of
    `subprocess.Popen`."""

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int, /) -> None: ...

    def wait(self) -> int: ...


@runtime_checkable
class Place(Protocol):
    """The resources of one run at a time."""

    def start(self, job: Job, /) -> Process:
        """Start the job there."""
        ...


@dataclass(frozen=True)
class Slot:
    """A share of this machine."""

    cores: frozenset[int] | None = None
    """Processor cores that the run may use; None for all."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, job: Job) -> subprocess.Popen[bytes]:
        """Start the job on its cores, in its environment."""
        process = job.start(env={**os.environ, **self.environment})
        if self.cores is not None:
            # before JAX is imported there, so that it makes as many threads as it has cores
            os.sched_setaffinity(process.pid, self.cores)
        return process


def hardware_slots(count: int | None = None) -> list[Slot]:
    """As many slots as runs fit side by side, or `count`: one for each GPU, else for each core.

    A run of these sizes is more than half as fast on one core as on two. With more slots than GPUs,
    these are shared, and memory is allocated on demand.
    """
    if jax.default_backend() != "cpu":
        devices = _visible_gpus()
        return [
            Slot(
                environment={
                    "CUDA_VISIBLE_DEVICES": devices[k % len(devices)],
                    "XLA_FLAGS": os.environ.get("XLA_FLAGS", QUICKLY_COMPILED),
                    **SHARED_GPU,
                }
            )
            for k in range(len(devices) if count is None else count)
        ]
    if not hasattr(os, "sched_getaffinity"):
        return [Slot()] * (count or 1)
    cores = sorted(os.sched_getaffinity(0))
    count = len(cores) if count is None else count
    if count == 1:
        return [Slot()]
    shares = [cores[k::count] or [cores[k % len(cores)]] for k in range(count)]
    return [Slot(frozenset(share)) for share in shares]


def _visible_gpus() -> list[str]:
    """The GPUs as `CUDA_VISIBLE_DEVICES` names them, where JAX counts those it sees from 0."""
    ids = [str(device.id) for device in jax.devices()]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [name.strip() for name in named.split(",")][: len(ids)] if named else ids


@dataclass
class Active:
    """A run in progress."""

    planned: Planned
    folder: Path
    process: Process
    place: Place

    def step(self) -> int:
        """The last step that its log has."""
        log = self.folder / "metrics.jsonl"
        events = read_events(log) if log.exists() else []
        return max((event["step"] for event in events), default=0)


class StudyRunner:
    """Runs the unfinished runs of a study.

    Run directories go to the folder `runs`, the record of each finished run to the file `records`.
    A run is finished when its record is there. An interrupted one resumes from its checkpoint.
    `shared`: the machine does other work beside them.
    """

    def __init__(self, runs: Path, records: Path, places: Sequence[Place], *, shared: bool = False):
        self.runs, self.records, self.places = runs, records, list(places)
        self.shared = shared
        self.failed: dict[str, str] = {}

    def check(self, planned: Sequence[Planned]) -> None:
        """UsageError if a folder or a record of one of these names is of another configuration."""
        finished = finished_runs(self.records)
        for run in planned:
            if any(need not in finished for need in run.needs):
                continue
            run = run.settled(finished, self.runs)
            record = finished.get(run.name)
            if record is not None and not run.is_run_of(record):
                raise UsageError(
                    f"{self.records} has a record of {run.name} with another configuration: "
                    f"remove that line, or choose another --out"
                )
            file = self.runs / run.name / "config.yaml"
            if (
                run.variant.cut_from is None
                and file.exists()
                and not run.is_run_of({"config": read_yaml(file)})
            ):
                raise UsageError(
                    f"{file.parent} is a run of another configuration: remove it, or choose "
                    f"another --runs"
                )

    def run(self, planned: Sequence[Planned], report: Report, poll: float = 0.5) -> None:
        """Run all unfinished runs, in the order of their needs. Failures are listed in `failed`,
        with all runs that needed them; the others go on. On an early end, such as Ctrl-C, the runs
        in progress save and stop first.
        """
        finished = finished_runs(self.records)
        waiting = [run for run in planned if run.name not in finished]
        free, active = list(self.places), list[Active]()
        try:
            while waiting or active:
                for run in [r for r in waiting if any(need in self.failed for need in r.needs)]:
                    self.failed[run.name] = "what it builds on has failed"
                    waiting.remove(run)
                for run in [r for r in waiting if all(need in finished for need in r.needs)]:
                    if not free:
                        break
                    waiting.remove(run)
                    active.append(self._start(run.settled(finished, self.runs), free.pop()))
                    report("started", active[-1])
                for each in [a for a in active if a.process.poll() is not None]:
                    active.remove(each)
                    free.append(each.place)
                    report(self._finish(each), each)
                    finished = finished_runs(self.records)
                report("running", None)
                time.sleep(poll)
        finally:
            for each in active:
                each.process.send_signal(signal.SIGINT)
            for each in active:
                each.process.wait()

    def _start(self, run: Planned, place: Place) -> Active:
        job = self._job(run)
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        if run.variant.cut_from is None and not (job.folder / "config.yaml").exists():
            write_atomically(_config_of(job.folder), write_yaml(run.config))
        return Active(run, job.folder, place.start(job), place)

    def _job(self, run: Planned) -> Job:
        folder = self.runs / run.name
        output, train = folder.parent / f"{run.name}.txt", str(SCRIPTS / "train.py")
        if run.variant.cut_from is not None:
            return Job(folder, output, self._cutting(run, run.variant.cut_from, folder))
        begin = (train, "--config", str(_config_of(folder)), "--out", str(folder))
        return Job(folder, output, begin, (train, "--resume", str(folder)))

    def _cutting(self, run: Planned, variant: str, folder: Path) -> tuple[str, ...]:
        """The command that cuts the model of `variant`."""
        trained, compression = self.runs / run_name(variant, run.seed), run.config.compression
        command = [str(SCRIPTS / "cut.py"), "--run", str(trained), "--out", str(folder)]
        for name in ("mode", "rank", "method", "calibration"):
            command += [f"--{name}", str(getattr(compression, name))]
        if compression.maps is not None:
            command.append("--maps" if compression.maps else "--no-maps")
        return tuple(command)

    def _finish(self, each: Active) -> str:
        if each.process.returncode != 0:
            output = each.folder.parent / f"{each.planned.name}.txt"
            said = output.read_text(errors="replace").strip().splitlines()
            self.failed[each.planned.name] = said[-1] if said else f"see {output}"
            return "failed"
        config = comparable(plain_config(each.planned.config))
        finished = finished_runs(self.records)
        record = make_record(each.planned, each.folder, config, finished, shared=self.shared)
        keep_record(self.records, record)
        return "finished"


def _config_of(folder: Path) -> Path:
    """The file beside a run directory that its configuration is handed over in."""
    return folder.parent / f"{folder.name}.yaml"
