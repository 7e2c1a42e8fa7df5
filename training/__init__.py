"""Training with in-training compression, and the use of trained models.

    trained = training.fit(task, "lru")           # train on a task of yours, and shrink meanwhile
    trained = training.load_run("runs/NAME")      # or take what a run has trained
    trained.predict(inputs)

The names here are imported on first use, since most commands need only a part of the package.
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
"""The version of the distribution compressm-zoo, which holds the four packages."""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


_PLACES = {
    ".commands.fit": "fit",
    ".finished.load": "load_run",
    ".finished.streaming": "Stream",
    ".finished.trained": "TrainedRun",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    from zoo.lazy import lazily  # whose name has been checked by now

    return lazily(__name__, _PLACES)(name)
