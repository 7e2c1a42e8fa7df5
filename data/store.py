"""Where prepared data is kept."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """`$COMPRESSM_ZOO_CACHE`, else `$XDG_CACHE_HOME/compressm-zoo`, else `~/.cache/compressm-
    zoo`."""
    if own := os.environ.get("COMPRESSM_ZOO_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "compressm-zoo"
    return Path("~/.cache/compressm-zoo").expanduser()


def data_cache(cache_dir: Path | None) -> Path:
    """The folder for prepared data below `cache_dir` (None: the default one). Not created here."""
    return (default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()) / "data"
