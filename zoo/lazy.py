"""Public names of a package, imported on first use (PEP 562).

So an import of the package loads only the parts that are used.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def lazily(package: str, places: Mapping[str, str], *first: str) -> Callable[[str], Any]:
    """The `__getattr__` of `package`, which imports the modules in `places` on first use.

    `places` maps a module, relative to the package, to the names that it defines, separated by
    spaces. The modules `first` are imported before any of these. Submodules are found by their
    names too. A name that was found once is kept.
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
