"""Memory that the process keeps for its next step."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`, by their numbers in malloc.h."""


def keep_freed_memory() -> bool:
    """Have the C library keep the memory of arrays that are gone for those that come.

    By default glibc gives it back to the system and has the next step find it anew, page by page,
    each filled with zeros first: on a CPU up to half the time of what works on large arrays
    (`results/memory.md`). The process then stays as large as it ever was, arrays of more than a
    gibibyte aside.

    For the start of a program, before there are threads and arrays. True where it did something:
    not with other C libraries, nor where the environment has settings of its own (`MALLOC_` and
    `GLIBC_TUNABLES`), which stay.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    wanted = {_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: -1, _ARENA_MAX: 1}
    obeyed = [mallopt(parameter, value) == 1 for parameter, value in wanted.items()]
    return all(obeyed)
