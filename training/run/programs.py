"""Compiled programs, each made once for all threads."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax

Wait = Callable[[Callable[[], Any]], Any]
"""A function that waits for a piece of work, and may stop waiting."""


def at_once(work: Callable[[], Any]) -> Any:
    """The result of `work()`."""
    return work()


class Programs:
    """Functions compiled ahead of time, by name and by the shapes of their arguments.

    Any number of threads may request programs. If another thread is compiling the same program, the
    request waits for it.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._made: dict[Any, Future[Any]] = {}

    def find(self, what: str, args: tuple[Any, ...]) -> Any:
        """The program called `what` for arguments of these shapes; None if it is not ready."""
        made = self._made.get(_key(what, args))
        if made is None or not made.done() or made.exception() is not None:
            return None
        return made.result()

    def make(
        self, what: str, function: Any, args: tuple[Any, ...], wait: Wait = at_once
    ) -> tuple[Any, float | None]:
        """The program, and the seconds that it took to compile, None if another call did that.

        `function` is a jitted function; of `args` only structure, shapes and dtypes matter.
        `wait(work)` gives what `work()` returns. Raises errors of compiling and waiting; the next
        request tries again.
        """
        key = _key(what, args)
        while True:
            with self._lock:
                made = self._made.get(key)
                if made is None:
                    ours = self._made[key] = Future()
                    break
            if wait(made.exception) is None:
                return made.result(), None
            with self._lock:
                if self._made.get(key) is made:
                    del self._made[key]
        start = time.perf_counter()
        try:
            program = wait(function.lower(*args).compile)
        except BaseException as error:
            ours.set_exception(error)
            raise
        ours.set_result(program)
        return program, time.perf_counter() - start


def _key(what: str, args: tuple[Any, ...]) -> Any:
    leaves, structure = jax.tree.flatten(args)
    return what, structure, tuple((x.shape, x.dtype) for x in leaves)
