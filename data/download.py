"""Fetching official files: resumed where a connection broke off, and checked when complete."""

import fcntl
import http.client
import queue
import threading
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.request import Request, urlopen

from .task import Progress

_PATIENCE = 4.0  # seconds without an answer, or without data
_ATTEMPTS = 3  # in a row that bring nothing


@dataclass(frozen=True)
class RemoteFile:
    """A file that somebody publishes, and what it must be like."""

    name: str
    url: str
    size: int
    """In bytes."""
    sha256: str


def download(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """The file in `folder`, fetched unless it is there already.

    What has arrived is kept as `<name>.part` if the connection breaks off, and the rest is asked
    for, at once and at the next call. The file gets its name when its SHA-256 is right.

    Raises FileNotFoundError, within 5 s when nobody answers, saying where the file may be had and
    where to put it; ValueError when what came is another file.
    """
    target = folder / file.name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    with (folder / f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes of one run, one fetches
        if target.is_file():
            return target
        _fetch(file, part, progress)
        digest = file_digest(part)
        if digest != file.sha256:
            part.unlink()
            raise ValueError(
                f"{file.url}: what came is not the published file: SHA-256 {digest}, "
                f"allowed: {file.sha256}"
            )
        part.replace(target)
    return target


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(file: RemoteFile, part: Path, progress: Progress | None) -> None:
    """Brings `part` to the size of the file."""
    failures = 0
    while (start := _size(part)) != file.size:
        try:
            if start > file.size:
                part.unlink()
                start = 0
            _append(file, part, start, progress)
        except (OSError, http.client.HTTPException) as error:
            failures = failures + 1 if _size(part) <= start else 0
            # nobody there: say so at once; a connection that breaks off is tried again
            if failures == _ATTEMPTS or _size(part) == 0:
                raise FileNotFoundError(
                    f"{file.name} ({file.size / 1e6:.1f} MB) could not be downloaded from "
                    f"{file.url} ({error}): get it there and put it into {part.parent}, or into "
                    f"a folder of your own that --data-dir names"
                ) from error


def _append(file: RemoteFile, part: Path, start: int, progress: Progress | None) -> None:
    with _open(file.url, start) as answer:
        resumes = answer.status == HTTPStatus.PARTIAL_CONTENT
        if resumes and not answer.headers["Content-Range"].startswith(f"bytes {start}-"):
            raise OSError(f"asked for bytes from {start}, got {answer.headers['Content-Range']}")
        with part.open("ab" if resumes else "wb") as out:
            done = start if resumes else 0
            while done < file.size and (block := answer.read(min(1 << 18, file.size - done))):
                out.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, file.size, f"downloading {file.name}")
    if done < file.size:
        raise OSError(f"the connection broke off after {done} of {file.size} bytes")


def _open(url: str, start: int) -> http.client.HTTPResponse:
    """The answer to a request for all but the first `start` bytes.

    In a thread of its own, because nothing else bounds the time that looking up a name may take.
    """
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    answers: queue.SimpleQueue[IO | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urlopen(request, timeout=_PATIENCE))
        except Exception as error:  # handed to the caller, whatever it is
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_PATIENCE:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, http.client.HTTPResponse)
    return answer
