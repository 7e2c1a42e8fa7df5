"""The release of Long Range Arena: one packed archive, with one folder for each task.

Tay et al., ICLR 2021, https://github.com/google-research/long-range-arena.
"""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ..task import Progress
from .download import RemoteFile, download, locked
from .raw import Bounded

RELEASE = RemoteFile(
    "lra_release.gz",
    "https://storage.googleapis.com/long-range-arena/lra_release.gz",
    7_700_000_000,
)
_BLOCK = 1 << 20


def unpack_release(folder: str, downloads: Path, progress: Progress | None = None) -> Path:
    """The place below `downloads` that holds `folder` of the release, such as `listops-1000`.

    The archive is downloaded, and this folder alone unpacked, unless that has been done before. The
    folder gets its name when the archive has been read to its end, where gzip's checksum stands.

    Raises as `download` does, and ValueError when the archive is damaged or has no such folder.
    """
    place = downloads / "lra"
    target = place / folder
    if not target.is_dir():
        archive = download(RELEASE, place, progress)
        with locked(place / "unpacking"):
            if not target.is_dir():
                _unpack(archive, folder, target, progress)
    return place


def _unpack(archive: Path, folder: str, target: Path, progress: Progress | None) -> None:
    part = archive.parent / "unpacking.part"
    shutil.rmtree(part, ignore_errors=True)
    found = False
    try:
        for inside, content in _files_below(archive, folder, progress):
            found = True
            path = part / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                shutil.copyfileobj(content, out, _BLOCK)
        if not found:
            raise ValueError(f"{archive} holds no {folder}: it is not the release")
        target.parent.mkdir(parents=True, exist_ok=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _files_below(
    archive: Path, folder: str, progress: Progress | None
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The files in `folder`, by their paths in it, wherever in the archive it stands."""
    name, size = "its first file", archive.stat().st_size
    try:
        with (
            archive.open("rb") as packed,
            gzip.open(packed) as unzipped,
            tarfile.open(fileobj=Bounded(unzipped, archive), mode="r|") as tar,
        ):
            for number, member in enumerate(tar):
                name = member.name
                if progress is not None and (number % 1000 == 0 or member.size > _BLOCK):
                    progress(packed.tell(), size, f"unpacking {folder} of {archive.name}")
                inside = _path_below(PurePosixPath(name), PurePosixPath(folder))
                if inside is not None and member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None
                    yield inside, content
            while unzipped.read(_BLOCK):  # a stream's checksum is compared at its end
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{archive}: damaged or cut short in {name} ({error}): remove it, and it is fetched "
            f"again"
        ) from error
    if progress is not None:
        progress(size, size, f"unpacking {folder} of {archive.name}")


def _path_below(path: PurePosixPath, folder: PurePosixPath) -> PurePosixPath | None:
    """The rest of `path` after `folder`; None when it does not lead there, or out of it again."""
    parts, wanted = path.parts, folder.parts
    for start in range(len(parts) - len(wanted)):
        rest = parts[start + len(wanted) :]
        if parts[start : start + len(wanted)] == wanted and ".." not in rest:
            return PurePosixPath(*rest)
    return None
