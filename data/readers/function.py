"""Tasks from a function of the user: `package.module:function` or `file.py:function`."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from ..store.entry import TaskEntry
from ..store.places import Places
from ..task import Task

PLACES = "places"
"""A parameter of this name is not an option: it receives the `Places` of the run."""


@cache
def function_entry(name: str) -> TaskEntry:
    """The task that the function `module:function` or `path/to/file.py:function` makes.

    Its parameters are the options of the task. Each needs a default, and has the type of its
    annotation, or else of its default. A function of one dataclass has the fields of that class as
    its options. ValueError if there is no such function, or if its signature does not fit.
    """
    where, _, what = name.rpartition(":")
    function: Any = _import(where, name)
    for part in what.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise ValueError(f"`task` {name}: {where} must have a function {what}, got {function!r}")
    config_class, spread = _options(function, name)

    def load(config: Any, places: Places) -> Task:
        return _called(function, name, spread(config, places))

    return TaskEntry(config_class, load)


def _import(where: str, name: str) -> ModuleType:
    """The module or the file `where`, imported once."""
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise ValueError(f"`task` {name}: there is no file {where}")
    try:
        return _file_module(path.resolve()) if is_file else _module(where)
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise ValueError(f"`task` {name}: {where} cannot be imported: {_said(error)}") from error


def _module(where: str) -> ModuleType:
    """A module by its name, also from the current folder."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        return importlib.import_module(where)
    sys.path.append(here)  # last, so that it shadows nothing
    try:
        return importlib.import_module(where)
    finally:
        sys.path.remove(here)


def _file_module(path: Path) -> ModuleType:
    module = f"task:{path}"
    if module in sys.modules:
        return sys.modules[module]
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python file")
    sys.modules[module] = found = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(found)
    except BaseException:
        del sys.modules[module]
        raise
    return found


Spread = Callable[[Any, Places], dict[str, Any]]
"""The function's arguments from a configuration and the places."""


def _options(function: Callable[..., Any], name: str) -> tuple[type, Spread]:
    """The configuration class of a function, and the way to call the function with it."""
    try:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters.values())
    except (NameError, TypeError, ValueError) as error:
        raise ValueError(f"`task` {name} must have a signature, got {_said(error)}") from None
    placed = any(p.name == PLACES for p in parameters)
    options = [p for p in parameters if p.name != PLACES]

    def with_places(given: dict[str, Any], places: Places) -> dict[str, Any]:
        return {**given, PLACES: places} if placed else given

    kind: Any = hints.get(options[0].name) if len(options) == 1 else None
    if isinstance(kind, type) and is_dataclass(kind):
        whole = options[0].name
        _check_defaults(kind, name)
        return kind, lambda config, places: with_places({whole: config}, places)
    own = []
    for p in options:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) or p.default is p.empty:
            raise ValueError(f"`task` {name} must have a default for every option, got `{p}`")
        default = p.default
        own.append(
            (p.name, hints.get(p.name, type(default)), field(default_factory=lambda d=default: d))
        )
    config_class = make_dataclass("FunctionConfig", own, frozen=True)

    def spread(config: Any, places: Places) -> dict[str, Any]:
        return with_places({f.name: getattr(config, f.name) for f in fields(config)}, places)

    return config_class, spread


def _check_defaults(config_class: Any, name: str) -> None:
    for each in fields(config_class):
        if each.init and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(
                f"`task` {name} must have a default for every option, got `{each.name}`"
            )


def _called(function: Callable[..., Any], name: str, given: dict[str, Any]) -> Task:
    try:
        task = function(**given)
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise ValueError(f"`task` {name} failed: {_said(error)}") from error
    if not isinstance(task, Task):
        raise ValueError(f"`task` {name} must return a data.Task, got {type(task).__name__}")
    return task


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
