"""Several processes that train together: how they connect, and how they end when one is lost."""

import ctypes
import os
import re
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import jax

from ..settings.command import Together
from ..settings.errors import UsageError
from .interrupt import leave

HEARTBEAT = 20
"""Seconds without a heartbeat after which a process counts as lost."""
FAREWELL = 20
"""Seconds that a process waits at its end for the others."""


LOST = "another process of this run is gone"


class PeerLost(RuntimeError):
    """Another process of this run is gone."""


def join(together: Together) -> None:
    """Connect to the other processes. `UsageError` if they cannot be reached.

    If one of them is lost, `_lost` ends this process, even if it is idle or waits forever.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # JAX may end a process by an abort
    try:
        with _told_of_losses():
            jax.distributed.initialize(
                together.coordinator,
                together.processes,
                together.process,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=FAREWELL,
            )
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise UsageError(
            f"--coordinator must be the address of a process that can be reached, got "
            f"{together.coordinator or 'auto'} ({' '.join(str(error).split())[:200]})"
        ) from error


@contextmanager
def _told_of_losses() -> Iterator[None]:
    """Inside this context, JAX's client of the coordinator ends the process by `_lost`.

    By default it prints a stack and aborts, and `jax.distributed.initialize` (JAX 0.10) has no
    argument to change that, so the client is made with a private one. Its callback cannot convert
    the C++ error that it is called with, so C++ ends the process, by the handler that is set here.
    With a JAX or a C++ library that differ, the default stays.
    """
    from jax._src import distributed

    maker = getattr(distributed, "_jax", None)
    make = getattr(maker, "get_distributed_runtime_client", None)
    set_terminate = None
    with suppress(OSError, AttributeError):
        set_terminate = ctypes.CDLL("libstdc++.so.6")["_ZSt13set_terminatePFvvE"]
    if maker is None or make is None or set_terminate is None:
        yield
        return
    set_terminate(_LOST)
    maker.get_distributed_runtime_client = partial(_client, make)
    try:
        yield
    finally:
        maker.get_distributed_runtime_client = make


def _client(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`make` with the callback for a lost process; without it where `make` does not take it."""
    try:
        return make(*args, **kwargs, missed_heartbeat_callback=_lost)
    except TypeError:
        return make(*args, **kwargs)


def _lost(*_: object) -> None:
    """End this process with one line: another process is gone."""
    if _told.acquire(blocking=False):
        os.write(2, f"error: {LOST}: continue from the last checkpoint with --resume\n".encode())
        leave(1)
    threading.Event().wait()  # the main thread says it


_LOST = ctypes.CFUNCTYPE(None)(_lost)
_told = threading.Lock()

_SIGNS = re.compile(r"gloo|nccl|coordinat|heartbeat|UNAVAILABLE|DEADLINE|closed by peer", re.I)
"""Signs in the text of an error that another process has caused it."""


@contextmanager
def alert(folder: str) -> Iterator[None]:
    """Inside this context, errors that a lost process causes become `PeerLost`."""
    try:
        yield
    except (PeerLost, UsageError):
        raise
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        if not _SIGNS.search(said) or jax.process_count() == 1:
            raise
        _told.acquire(blocking=False)
        raise PeerLost(
            f"{LOST} ({said[:120]}): continue from the last checkpoint with --resume {folder}"
        ) from error
