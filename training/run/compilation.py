"""The cache of compiled programs, and the check for compiled kernels."""

from pathlib import Path

import jax

from data import default_cache_dir
from zoo.recurrence.compiled import compiled


def use_compilation_cache(cache_dir: Path | None = None) -> None:
    """Keep compiled programs in the user's cache folder, so that the next run finds them there.

    An existing setting (`JAX_COMPILATION_CACHE_DIR`) is kept.
    """
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        folder = (cache_dir or default_cache_dir()) / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    # A run has some fifty small programs besides: together they take a second to compile.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def missing_kernels() -> str | None:
    """Advice in one line if the CPU computes without kernels; None if it has them. JAX must have
    initialised its devices before.
    """
    if jax.default_backend() != "cpu" or compiled():
        return None
    return (
        "The kernels for the CPU are not built, so training is slower: install a C++ compiler "
        "(g++ or clang++), then run `pip install --force-reinstall --no-deps .` again."
    )
