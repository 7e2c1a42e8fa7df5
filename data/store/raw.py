"""Raw files in a folder: found, unpacked within limits, and split for validation."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

MOST_TIMES = 200
"""Largest expansion of a packed file; texts expand about four times."""
FREE = 2**26
"""Expanded bytes that every packed file may have."""

BOM = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8."""


@runtime_checkable
class Stream(Protocol):
    """A reader of bytes."""

    def read(self, size: int = -1, /) -> bytes: ...


class Bounded(io.RawIOBase):
    """A reader of a packed file, with a ValueError if it expands too much."""

    def __init__(self, stream: Stream, path: Path):
        self._stream, self._path = stream, path
        self._most = FREE + MOST_TIMES * path.stat().st_size
        self._left = self._most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(
                f"{self._path} must unpack to at most {self._most} bytes, {MOST_TIMES} times its "
                "size, got more"
            )
        buffer[: len(data)] = data
        return len(data)


def find_file(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of `names` in `folder`; FileNotFoundError with the names if there is none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has no {names[0]} ({what})")


def read_bytes(path: Path) -> bytes:
    """A whole file, unpacked if it is gzipped.

    ValueError naming it when it is damaged, or unpacks to far more than its size.
    """
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        with gzip.open(io.BytesIO(raw)) as unzipped:
            return io.BufferedReader(Bounded(unzipped, path)).read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip data is damaged or cut short ({error})") from error


def files_in_tar(
    archive: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The files of a gzipped archive whose paths are `wanted`, with what they hold, in its order.

    ValueError naming the file where the archive is damaged, where a link or a device stands in the
    place of a file, and for one that unpacks to far more than its size.
    """
    name = "its first file"
    try:
        with (
            gzip.open(archive) as unzipped,
            tarfile.open(fileobj=Bounded(unzipped, archive), mode="r|") as tar,
        ):
            for member in tar:
                name, path = member.name, PurePosixPath(member.name)
                if member.isdir() or not wanted(path):
                    continue
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    kind = "a link" if member.issym() or member.islnk() else "a device"
                    raise ValueError(f"{archive}: {name} must be a plain file, got {kind}")
                yield path, content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive}: damaged or cut short in {name} ({error})") from error


def numbered_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a text from 1 on, without their ends.

    A byte order mark at the beginning, and blank lines at the end, are left out.
    """
    blank: list[int] = []
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(BOM) if number == 1 else line
        text = text.rstrip(b"\r\n")
        if not text.strip():
            blank.append(number)
            continue
        for before in blank:
            yield before, b""
        blank.clear()
        yield number, text


def hold_out(
    count: int, validation: int, seed: int
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " validation"]]:
    """The indices of `count` training samples for training and for validation. ValueError if none
    are left for training.
    """
    if validation >= count:
        raise ValueError(
            f"validation must leave some of the {count} training samples, got {validation}"
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[validation:]), np.sort(order[:validation])
