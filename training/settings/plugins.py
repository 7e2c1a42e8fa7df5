"""Python files and modules of the user, imported for what they register: layers, tasks, presets."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import UsageError


def import_plugins(names: Iterable[str]) -> tuple[str, ...]:
    """Import each of `names`, a file `path/to/file.py` or a module `package.module`, once.

    Returns the names as a run keeps them, files by their absolute paths. `UsageError` in one line
    if one is missing or fails.
    """
    return tuple(dict.fromkeys(_import(name) for name in names))


def _import(name: str) -> str:
    path = Path(name)
    is_file = path.suffix == ".py" or len(path.parts) > 1
    if is_file and not path.is_file():
        raise UsageError(f"--plugin {name}: there is no such file")
    try:
        if is_file:
            _import_file(path.resolve())
        else:
            importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's code does
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"--plugin {name} failed: {' '.join(what.split())}") from error
    return str(path.resolve()) if is_file else name


def _import_file(path: Path) -> None:
    module = f"plugin:{path}"
    if module in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python file")
    sys.modules[module] = found = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(found)
    except BaseException:
        del sys.modules[module]
        raise
