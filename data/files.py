"""From official raw files to prepared data, wherever the files are."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from .builder import AbstractTaskBuilder, Prepared, Recipe, find_complete, prepare
from .download import RemoteFile, download
from .store import data_cache
from .task import Progress


def prepare_from_files(
    builder_class: type[AbstractTaskBuilder],
    settings: Any,
    settings_name: str,
    find: Callable[[Path], Mapping[str, Path]],
    remote: Sequence[RemoteFile],
    *,
    data_dir: Path | None,
    cache_dir: Path | None,
    progress: Progress | None,
) -> Prepared:
    """The data set that `builder_class` makes of the files that `find` finds in a folder.

    The folder is `data_dir`; without it, whatever has been prepared in full before is taken, with
    these settings, and else the files `remote` are downloaded. `settings_name` must differ wherever
    what the builder makes of the same files does.
    """
    folder = data_cache(cache_dir)
    if data_dir is not None:
        raw = Path(data_dir).expanduser()
        if not raw.exists():
            raise FileNotFoundError(f"data_dir {raw} does not exist")
    else:
        known = find_complete(builder_class, settings_name, folder)
        if known is not None:
            recipe = Recipe(name=known, settings=settings, source={}, progress=progress)
            return prepare(builder_class, recipe, folder)
        raw = folder / "downloads" / builder_class.name
        for file in remote:
            download(file, raw, progress)
    paths = find(raw)
    name = f"{settings_name}_files_{fingerprint(paths)}"
    recipe = Recipe(name=name, settings=settings, source=paths, progress=progress)
    return prepare(builder_class, recipe, folder)


def fingerprint(paths: Mapping[str, Path]) -> str:
    """Changes when one of the files does, or a file in one of the folders."""
    lines = []
    for path in paths.values():
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            stat = file.stat()
            lines.append(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}")
    return sha256("\n".join(lines).encode()).hexdigest()[:12]
