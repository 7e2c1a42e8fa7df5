"""Several processes that train together: how they meet, and how they end when one is gone."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from ..settings.command import Together
from ..settings.errors import UsageError

HEARTBEAT = 20
"""Seconds without a sign of life after which a process counts as gone."""
FAREWELL = 20
"""Seconds that a process waits at its end for the others to end too."""


class PeerLost(RuntimeError):
    """Another process of this run is gone."""


def join(together: Together) -> None:
    """Meet the other processes. `UsageError` if they cannot be met.

    JAX ends a process by an abort when the coordinator is gone; no core file is left then.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    try:
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
def alert(folder: str) -> Iterator[None]:
    """`PeerLost` where a program fails inside since another process is gone."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        said = " ".join(str(error).split())[:120]
        raise PeerLost(
            f"another process of this run is gone ({said}): go on from the last checkpoint, all "
            f"processes with --resume {folder}"
        ) from error
