"""Downloads of official files: resumed after broken connections, and checked when complete."""

import base64
import fcntl
import hashlib
import http.client
import os
import queue
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.request import Request, urlopen

from ..task import Progress

_PATIENCE = 4.0  # seconds without an answer, or without data
_ATTEMPTS = 3  # in a row that bring nothing


@dataclass(frozen=True)
class RemoteFile:
    """A published file, with its size and checksum."""

    name: str
    url: str
    size: int
    """Size in bytes; approximate without a checksum."""
    sha256: str | None = None
    """SHA-256. None if none is published: then the length and, if given as by Google Cloud Storage,
    the MD5 that the server announces are checked."""

    def described(self) -> str:
        """The name and the size."""
        large = self.size >= 1e9
        return f"{self.name} ({self.size / (1e9 if large else 1e6):.1f} {'G' if large else 'M'}B)"


def download_all(
    name: str, files: Sequence[RemoteFile], downloads: Path, progress: Progress | None = None
) -> Path:
    """The folder `name` in `downloads`, with all `files` in it (`download`)."""
    for file in files:
        download(file, downloads / name, progress)
    return downloads / name


def download(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """The file in `folder`, fetched unless it is there already.

    If the connection breaks off, the received part is kept as `<name>.part`, and the rest is
    requested at once and in the next call. The file gets its name after its check. `progress` is
    called with the size before the download. Raises FileNotFoundError, within 5 s without an
    answer, with the file's source and place; OSError if the disk is too small; ValueError if
    another file arrives.
    """
    target = folder / file.name
    if target.is_file():
        return target
    with locked(target):
        if target.is_file():
            return target
        if file.sha256 is None:
            file, checksum = _announced(file, folder)
        else:
            checksum = ("sha256", file.sha256)
        part = folder / f"{file.name}.part"
        _check_room(file, part)
        if progress is not None:
            progress(_size(part), file.size, f"downloading {file.described()}")
        _fetch(file, part, progress)
        if checksum is not None:
            algorithm, wanted = checksum
            found = file_digest(part, algorithm)
            if found != wanted:
                part.unlink()
                raise ValueError(
                    f"{file.url} must give the published file, of {algorithm.upper()} {wanted}, "
                    f"got {found}"
                )
        part.replace(target)
    return target


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """A lock, so that one process at a time makes `path`. Its folder is created first. Without
    `wait`, a BlockingIOError if another process has the lock. OSError if the lock is a link, which
    is not followed, or not a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.parent / f"{path.name}.lock"
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise OSError(f"{file} must be a plain file, got: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise OSError(f"{file} must be a plain file, got another kind")
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(lock)


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """A checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _announced(file: RemoteFile, folder: Path) -> tuple[RemoteFile, tuple[str, str] | None]:
    """The file with the size and, if available, the MD5 that its server announces."""
    try:
        with _open(Request(file.url, method="HEAD")) as answer:
            headers = answer.headers
    except (OSError, http.client.HTTPException) as error:
        raise _out_of_reach(file, folder, error) from error
    if not (headers["Content-Length"] or "").isdecimal():
        raise ValueError(f"{file.url}: the server announces no length, but one is needed")
    hashes = ",".join(headers.get_all("x-goog-hash", ())).split(",")
    told = {name.strip(): value for name, _, value in (each.partition("=") for each in hashes)}
    checksum = ("md5", base64.b64decode(told["md5"]).hex()) if "md5" in told else None
    return replace(file, size=int(headers["Content-Length"])), checksum


def _check_room(file: RemoteFile, part: Path) -> None:
    needed, free = file.size - _size(part), shutil.disk_usage(part.parent).free
    if needed > free:
        raise OSError(
            f"{file.described()} needs {needed / 1e9:.1f} GB in {part.parent}, which has "
            f"{free / 1e9:.1f} GB left: make room, or name another --cache-dir"
        )


def _out_of_reach(file: RemoteFile, folder: Path, error: Exception) -> FileNotFoundError:
    return FileNotFoundError(
        f"{file.described()} could not be downloaded from {file.url} ({error}): get it there and "
        f"put it into {folder}, or have what is in it in a folder of your own that --data-dir names"
    )


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
            # no server: fail at once; a broken connection is tried again
            if failures == _ATTEMPTS or _size(part) == 0:
                raise _out_of_reach(file, part.parent, error) from error


def _append(file: RemoteFile, part: Path, start: int, progress: Progress | None) -> None:
    with _open(Request(file.url, headers={"Range": f"bytes={start}-"} if start else {})) as answer:
        resumes = answer.status == HTTPStatus.PARTIAL_CONTENT
        range_sent = answer.headers["Content-Range"]
        if resumes and not (range_sent or "").startswith(f"bytes {start}-"):
            raise OSError(f"asked for bytes from {start}, got {range_sent}")
        with part.open("ab" if resumes else "wb") as out:
            done = start if resumes else 0
            while done < file.size and (block := answer.read(min(1 << 18, file.size - done))):
                out.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, file.size, f"downloading {file.described()}")
    if done < file.size:
        raise OSError(f"the connection broke off after {done} of {file.size} bytes")


def _open(request: Request) -> http.client.HTTPResponse:
    """The answer to a request.

    In a thread of its own, because nothing else bounds the time that looking up a name may take.
    """
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
