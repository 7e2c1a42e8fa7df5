"""Memory that the process keeps for its next step."""

import contextlib
import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`, by their numbers in malloc.h."""


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for later arrays. By default glibc returns it to the
    system, and the next step gets new pages, each filled with zeros first. On a CPU this takes up
    to half the time of operations on large arrays (`results/memory.md`). The process then keeps its
    largest size, except for arrays above one gibibyte. Call it at the start of a program, before
    there are threads and arrays. Returns whether it had an effect: not with other C libraries, nor
    if the environment sets `MALLOC_` variables or `GLIBC_TUNABLES`, which are kept.
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


def give_back_freed_memory() -> None:
    """Return freed memory to the system: between parts of a work that take much, of different
    sizes. The C library would keep what lies between arrays that are still there. Without effect
    where it is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
