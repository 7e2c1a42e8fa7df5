"""Compiled programs that outlive the process."""

from pathlib import Path

import jax

from data import default_cache_dir


def use_compilation_cache(cache_dir: Path | None = None) -> None:
    """Keep compiled programs in the user's cache folder, so that the next run finds them there.

    A folder that is set already (`JAX_COMPILATION_CACHE_DIR`) stays.
    """
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        folder = (cache_dir or default_cache_dir()) / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
