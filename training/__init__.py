"""Training with compression on the way, and what comes out of it.

    trained = training.fit(task, "lru")           # train on a task of yours, and shrink meanwhile
    trained = training.load_run("runs/NAME")      # or take what a run has trained
    trained.predict(inputs)

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

__version__ = "0.1.0"
"""The version of the distribution, compressm-zoo, that the four packages come with."""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


_PLACES = {
    ".commands.fit": "fit",
    ".finished.load": "load_run",
    ".finished.streaming": "Stream",
    ".finished.trained": "TrainedRun",
}
"""Where each public name is made."""


def __getattr__(name: str) -> Any:
    from zoo.lazy import lazily  # whose name has been checked by now

    return lazily(__name__, _PLACES)(name)
