"""The configuration in a file, or of a run by its directory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

from data import TASKS

from .config import RunConfig
from .errors import UsageError, shown
from .options import with_options
from .plugins import import_plugins
from .presets import Preset, preset
from .yaml import read_yaml

DEFAULTS = {"model": "s5", "task": "pathfinder", "scale": "small"}
"""The options that choose the preset, and their defaults."""


def read_config(folder: Path, *, needs_data: bool = True) -> RunConfig[Any, Any]:
    """The configuration of the run in `folder`; its plug-ins are imported first.

    Without `needs_data`, the user's own data may be missing. `UsageError` if there is no run, or if
    its configuration does not fit this version.
    """
    file = config_file(folder)
    return complete(read_yaml(file), file, needs_data=needs_data)


def config_file(folder: Path) -> Path:
    """Where the run in `folder` keeps its configuration. `UsageError` if there is no run."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{folder}: there is no run, {file} is missing")
    return file


def complete(
    given: Mapping[str, Any],
    file: Path | None = None,
    start: Preset | None = None,
    *,
    needs_data: bool = True,
) -> RunConfig[Any, Any]:
    """The configuration that has the values of `given`, and those of the preset elsewhere.

    `start` takes the place of the task's preset. Plug-ins in `given` are imported first. Errors
    name the `file` that the values are from. Without `needs_data`, the user's own data may be
    missing: their options are kept unchecked.
    """
    plugins = import_plugins(_plugins(given, file))
    chosen = {name: given.get(name, default) for name, default in DEFAULTS.items()}
    for name, value in chosen.items():
        if not isinstance(value, str):
            where = f"{file}: " if file else ""
            raise UsageError(f"{where}`{name}` must be a name, got {shown(value)}")
    try:
        gone = not needs_data and chosen["task"] not in TASKS
        data = _NoOptions() if gone else None
        config = replace(preset(**chosen, start=start, data=data), plugins=plugins)
    except ValueError as error:
        raise UsageError(str(error)) from None
    rest = {k: v for k, v in given.items() if k not in (*DEFAULTS, "plugins")}
    kept = rest.pop("data", None) if gone else None
    try:
        config = with_options(config, rest)
        return replace(config, data=_as_they_are(kept or {})) if gone else config
    except UsageError as error:
        raise UsageError(f"{file}: {error}" if file else str(error)) from None


@dataclass(frozen=True)
class _NoOptions:
    """Placeholder for options of data that are not checked."""


def _as_they_are(options: Mapping[str, Any]) -> Any:
    """Options as a dataclass, whatever they mean."""
    columns = [(name, Any, field(default_factory=lambda v=v: v)) for name, v in options.items()]
    return make_dataclass("KeptOptions", columns, frozen=True)()


def _plugins(given: Mapping[str, Any], file: Path | None) -> list[str]:
    plugins = given.get("plugins") or []
    if not isinstance(plugins, list | tuple) or not all(isinstance(p, str) for p in plugins):
        raise UsageError(
            f"{file}: `plugins` must be a list of files or modules, got {shown(plugins)}"
        )
    return list(plugins)
