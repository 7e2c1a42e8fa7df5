"""One thread for LAPACK, and threads for what is independent."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import jax
import scipy
from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, in threads that have the caller's `jax.enable_x64`."""
    is_double = jax.config.read("jax_enable_x64")

    def of_one(item: Item) -> Result:
        with jax.enable_x64(is_double):  # a setting of each thread
            return function(item)

    with ThreadPoolExecutor(os.cpu_count()) as each:
        return list(each.map(of_one, items))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which NumPy's, SciPy's and JAX's BLAS on CPU run on one thread.

    The threads of OpenBLAS wait for each other actively, thousands of times in one SVD. Where
    another process has one of the cores, as a data loader does, each wait lasts a time slice (seen
    on 2 cores: 10 s instead of 0.5 s, n = 1024). On idle cores one thread costs a fifth more.

    The limit is the whole process's: it ends when the last thread has left such a context, so what
    one thread computes does not depend on when another one enters or leaves.
    """
    with _lock:
        if not _limits:
            _limits.append(_controller().limit(limits=1, user_api="blas"))
            _limits[0].__enter__()
        else:
            _limits.append(None)
    try:
        yield
    finally:
        with _lock:
            if len(_limits) == 1:
                _limits[0].__exit__(None, None, None)
                _limits.clear()
            else:
                _limits.pop()


_lock = threading.Lock()
_limits: list[Any] = []
"""One entry for each thread inside, the limit itself first."""


@cache
def _controller() -> ThreadpoolController:
    _ = scipy.linalg  # SciPy loads it when it is first named; its BLAS is JAX's, and must be there
    return ThreadpoolController()
