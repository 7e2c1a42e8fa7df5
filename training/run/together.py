"""Several processes that train together: how they meet, and how they end when one is gone."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Inside, a client of JAX's coordinator is made that calls `_lost` instead of an abort.

    `jax.distributed.initialize` has no argument for it; where JAX makes clients in another way,
    nothing changes.
    """
    from jax._src import distributed

    maker = getattr(distributed, "_jax", None)
    make = getattr(maker, "get_distributed_runtime_client", None)
    if maker is None or make is None:
        yield
        return
    maker.get_distributed_runtime_client = partial(make, missed_heartbeat_callback=_lost)
    try:
        yield
    finally:
        maker.get_distributed_runtime_client = make


def _lost(*_: object) -> None:
    """End this process, with the one line that says why: another one is gone."""
    os.write(2, f"error: {LOST}: go on from the last checkpoint with --resume\n".encode())
    leave(1)


@contextmanager
def alert(folder: str) -> Iterator[None]:
    """`PeerLost` where a program fails inside since another process is gone."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        said = " ".join(str(error).split())[:120]
        raise PeerLost(
            f"{LOST} ({said}): go on from the last checkpoint with --resume {folder}"
        ) from error
