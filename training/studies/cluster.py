"""Runs of a study on a Dask cluster (`dask.distributed`, extra `cluster`).

Run directories must be on a disk that all workers reach, and the workers need this package. A run
whose worker dies is given to another one, which resumes it from its checkpoint.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from data.store.download import locked

from ..settings.errors import UsageError
from .runner import Job

PATIENCE = 10.0
"""Seconds to wait for a scheduler's answer."""


@dataclass(frozen=True)
class ClusterPlace:
    """A slot for one run on any free worker."""

    client: Any
    stop: Any
    """The `distributed.Event` that tells every run to save and stop."""

    def start(self, job: Job) -> "RemoteRun":
        """Hand the job to the scheduler, which starts it when a worker is free."""
        here = Path.cwd()
        job = replace(job, folder=here / job.folder, output=here / job.output)
        future = self.client.submit(carry_out, job, str(here), self.stop.name, pure=False)
        return RemoteRun(future, self.stop, job.output)


class RemoteRun:
    """A run on a worker, with the methods of a process that the runner needs."""

    def __init__(self, future: Any, stop: Any, output: Path):
        self._future, self._stop, self._output = future, stop, output
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while the run goes on or waits for a worker."""
        if self.returncode is None and self._future.done():
            error = self._future.exception()
            self.returncode = self._future.result() if error is None else 1
            if error is not None:
                with self._output.open("a") as output:
                    output.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Tell this run, and all others of the study, to save and stop."""
        self._stop.set()

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        from distributed import wait  # pyright: ignore[reportMissingImports]

        wait(self._future)
        return self.poll() or 0


@contextmanager
def cluster_places(address: str, count: int) -> Iterator[list[ClusterPlace]]:
    """Slots for `count` runs on the cluster with the scheduler at this address. Each worker runs as
    many at once as it has threads. UsageError if there is no such scheduler, or the extra is not
    installed.
    """
    try:
        from distributed import Client, Event  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError(
            "--scheduler needs the extra `cluster`: pip install -e '.[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"--scheduler must be the address of a Dask scheduler, got {address!r} ({error})"
        ) from None
    with client:
        stop = Event(f"stop-{uuid4().hex}", client=client)
        yield [ClusterPlace(client, stop)] * count


def carry_out(job: Job, folder: str, stop: str) -> int:
    """Do a job on a worker; its exit code. When the event called `stop` is set, it is interrupted.

    If a run of the same job has outlived its worker, it is waited for.
    """
    from distributed import Event  # pyright: ignore[reportMissingImports]

    job.folder.parent.mkdir(parents=True, exist_ok=True)
    if job.folder.exists():
        with locked(job.folder / "metrics.jsonl"):
            pass
    stopped, process = Event(stop), job.start(cwd=folder)
    try:
        while process.poll() is None:
            if stopped.wait(timeout=1):
                break
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    return process.wait()
