"""Checks that the packages that this one imports are ours, since their names are common words."""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The folder that all packages are in."""


def check_names(*names: str) -> None:
    """ImportError if another module of one of these names is found first, or imported already."""
    for name in names:
        known = sys.modules.get(name)
        spec = PathFinder.find_spec(name) if known is None else known.__spec__
        if spec is None:
            continue  # an editable install can find our packages where no path does
        places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        foreign = [place for place in places if not Path(place).is_relative_to(ROOT / name)]
        if foreign:
            raise ImportError(
                f"`{name}` must be the package in {ROOT / name}, but {foreign[0]} has the same "
                "name and is found first: rename it, or run Python from another folder"
            )
