"""Several processes that train together: how they meet, and how they end when one is gone."""

import ctypes
import os
import re
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import jax

from ..settings.command import Together
from ..settings.errors import UsageError
from .interrupt import leave

HEARTBEAT = 20
"""Seconds without a sign of life after which a process counts as gone."""
FAREWELL = 20
"""Seconds that a process waits at its end for the others to end too."""


LOST = "another process of this run is gone"


class PeerLost(RuntimeError):
    """Another process of this run is gone."""


def join(together: Together) -> None:
    """Meet the other processes. `UsageError` if they cannot be met.

    When one of them is gone while this one waits for nothing, or forever, `_lost` ends it.
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
    """Inside, a client of JAX's coordinator is made that ends the process by `_lost`.

    By itself it prints a stack and aborts, and `jax.distributed.initialize` has no argument for
    anything else. What it is given here cannot take its kind of error, so that C++ ends the
    process by the handler that is set here. Where JAX, or C++, is made in another way, nothing
    changes.
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
    maker.get_distributed_runtime_client = partial(make, missed_heartbeat_callback=_lost)
    try:
        yield
    finally:
        maker.get_distributed_runtime_client = make


def _lost(*_: object) -> None:
    """End this process, with the one line that says why: another one is gone."""
    if _told.acquire(blocking=False):
        os.write(2, f"error: {LOST}: go on from the last checkpoint with --resume\n".encode())
        leave(1)
    threading.Event().wait()  # the main thread says it


_LOST = ctypes.CFUNCTYPE(None)(_lost)
_told = threading.Lock()

_SIGNS = re.compile(r"gloo|nccl|coordinat|heartbeat|UNAVAILABLE|DEADLINE|closed by peer", re.I)
"""What an error says that another process has caused."""


@contextmanager
def alert(folder: str) -> Iterator[None]:
    """`PeerLost` where a program fails inside since another process is gone."""
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
            f"{LOST} ({said[:120]}): go on from the last checkpoint with --resume {folder}"
        ) from error
