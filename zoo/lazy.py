"""Public names of a package, imported on first use (PEP 562).

An import of the package then waits for no part of it that is not used.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def lazily(package: str, places: Mapping[str, str], *first: str) -> Callable[[str], Any]:
    """The `__getattr__` of `package`, whose names are made in the modules that `places` says.

    `places` has a module, relative to the package, and the names that it makes, with spaces between
    them. The modules `first` are imported before any of these. Parts of the package are found by
    their names as well, as if they were imported. What was asked for once is kept.
    """
    made = {name: module for module, names in places.items() for name in names.split()}
    folder = Path(sys.modules[package].__file__ or "").parent

    def find(name: str) -> Any:
        if name in made:
            for module in first:
                importlib.import_module(module, package)
            found = getattr(importlib.import_module(made[name], package), name)
        elif not name.startswith("_") and (
            (folder / name).is_dir() or (folder / f"{name}.py").exists()
        ):
            found = importlib.import_module(f".{name}", package)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, found)
        return found

    return find
