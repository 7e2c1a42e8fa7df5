"""Prepared data from official raw files, or generated."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from ..task import Progress
from ..typing import checked
from .builder import AbstractTaskBuilder, Prepared, Recipe, find_complete, prepare
from .places import Places

Fetch = Callable[[Path, Progress | None], Path]
"""A function that downloads official files and returns their folder."""


@checked
def prepare_from_files(
    builder_class: type[AbstractTaskBuilder],
    settings: Any,
    settings_name: str,
    find: Callable[[Path], Mapping[str, Path]],
    fetch: Fetch,
    places: Places,
) -> Prepared:
    """The data set that `builder_class` makes of the files that `find` finds in a folder.

    The folder is `data_dir`. Without it, a complete data set that has been prepared with these
    settings is used; otherwise `fetch` downloads the files. `settings_name` must identify all
    settings of the builder.
    """
    folder, progress = places.prepared, places.progress
    if places.data_dir is not None:
        raw = places.data_dir
        if not raw.exists():
            raise FileNotFoundError(f"data_dir {raw} does not exist")
    else:
        known = find_complete(builder_class, settings_name, folder)
        if known is not None:
            recipe = Recipe(name=known, settings=settings, source={}, progress=progress)
            return prepare(builder_class, recipe, folder)
        raw = fetch(folder / "downloads", progress)
    paths = find(raw)
    name = f"{settings_name}_files_{fingerprint(paths)}"
    recipe = Recipe(name=name, settings=settings, source=paths, progress=progress)
    return prepare(builder_class, recipe, folder)


@checked
def prepare_without_files(
    builder_class: type[AbstractTaskBuilder],
    settings: Any,
    settings_name: str,
    why: str,
    places: Places,
) -> Prepared:
    """The data set that `builder_class` generates. `settings_name` must identify all of its
    settings. ValueError with the reason `why` if `data_dir` is given.
    """
    if places.data_dir is not None:
        raise ValueError(f"data_dir must be left out {why}; got {places.data_dir}")
    recipe = Recipe(name=settings_name, settings=settings, progress=places.progress)
    return prepare(builder_class, recipe, places.prepared)


@checked
def is_official(source: Literal["official", "generated"] | None, places: Places) -> bool:
    """Whether a task that can also be generated is to be read from official files."""
    return places.data_dir is not None if source is None else source == "official"


@checked
def fingerprint(paths: Mapping[str, Path]) -> str:
    """A fingerprint of the files, and of the files in the folders."""
    lines = []
    for path in paths.values():
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            stat = file.stat()
            lines.append(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}")
    return sha256("\n".join(lines).encode()).hexdigest()[:12]
