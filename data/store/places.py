"""The folders of raw files and prepared data."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..task import Progress


@dataclass(frozen=True)
class Places:
    """The folders of a task, and the callback for progress."""

    data_dir: Path | None = None
    """The folder with the user's own raw files, if there is one."""
    cache_dir: Path | None = None
    """The folder for prepared data; None: `default_cache_dir()`."""
    progress: Progress | None = None

    def __post_init__(self):
        for name in ("data_dir", "cache_dir"):
            folder = getattr(self, name)
            if folder is not None:
                object.__setattr__(self, name, Path(folder).expanduser())

    @property
    def prepared(self) -> Path:
        """The folder for prepared data. Not created here."""
        return (default_cache_dir() if self.cache_dir is None else self.cache_dir) / "data"


def default_cache_dir() -> Path:
    """`$COMPRESSM_ZOO_CACHE`, else `$XDG_CACHE_HOME/compressm-zoo`, else `~/.cache/compressm-
    zoo`."""
    if own := os.environ.get("COMPRESSM_ZOO_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "compressm-zoo"
    return Path("~/.cache/compressm-zoo").expanduser()
