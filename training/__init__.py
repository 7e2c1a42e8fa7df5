"""Training with compression on the way, and what comes out of it.

What stands here is imported when it is asked for: most commands need only a part.
"""

from typing import TYPE_CHECKING, Any

from .names import check_names

if TYPE_CHECKING:
    from .commands.fit import fit
    from .finished.load import load_run
    from .finished.streaming import Stream
    from .finished.trained import TrainedRun

check_names("zoo", "data", "compress")

__all__ = ["Stream", "TrainedRun", "fit", "load_run"]

_PLACES = {
    "Stream": ".finished.streaming",
    "TrainedRun": ".finished.trained",
    "fit": ".commands.fit",
    "load_run": ".finished.load",
}
"""Where each public name is made."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)
