"""Compiled programs, each made once for all threads."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import jax

Wait = Callable[[Callable[[], Any]], Any]
"""Gives what a piece of work returns, and may give up waiting for it."""


def at_once(work: Callable[[], Any]) -> Any:
    """What `work()` returns."""
    return work()


class Programs:
    """Functions compiled ahead of time, by name and by the shapes of their arguments.

    Any number of threads may ask for programs. One that asks for what another is just compiling
    waits for it.
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
        `wait(work)` gives what `work()` returns. Raises what compiling and waiting raise; the next
        one who asks tries again.
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
