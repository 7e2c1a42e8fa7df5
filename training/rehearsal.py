"""A shrink tried out in the background, on a copy of the state, some steps before it is due.

Hankel singular values move slowly, so the sizes that a shrink will choose can be told ahead. The
rehearsal goes through the whole shrink on a copy of the state and compiles what comes after it,
while training goes on. The shrink itself then finds every program ready.

What is learned does not depend on threads. The copy is taken at a step that follows from the
schedule; the shrink waits for the rehearsal; and what it takes over from it, the ranks, is part of
every checkpoint in between. In mode "tolerance" these may lie a little above those needed at the
shrink (`settle`), so a run without rehearsals can end otherwise; one that was stopped cannot.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from compress.rank import JointPolicy, Policy

EXCESS = 0.1
"""Share of the states that a layer needs that it may keep beyond them, for the sake of a shape."""


def settle(policy: Policy, rehearsed: Sequence[int] | None, multiple: int) -> JointPolicy:
    """`policy` for every layer, or the ranks of the rehearsal where they are enough, and near.

    The rehearsed ranks are taken if no layer needs more, and none would keep more than `multiple`
    states or a tenth beyond what it needs, whichever is more. So the tolerance holds either way.
    """

    def ranks(sigmas: Sequence[Any], _: Callable[[list[int]], Any]) -> list[int]:
        needed = [policy(sigma) for sigma in sigmas]
        if rehearsed is not None and all(
            need <= rank <= need + max(multiple, EXCESS * need)
            for need, rank in zip(needed, rehearsed, strict=True)
        ):
            return list(rehearsed)
        return needed

    return JointPolicy(ranks)


@dataclass(frozen=True)
class Outcome:
    """What became of a rehearsal."""

    d_state: list[int] | None
    """Sizes of all layers after it; None if it did not come so far."""
    compiled: list[tuple[str, float]]
    """Programs compiled, and the seconds of each."""
    seconds: float
    """How long it took, in the background."""
    error: str | None
    """What went wrong, None if nothing did."""


class Rehearsal:
    """One rehearsal, which starts at once in a thread of its own.

    `plan()` returns the ranks that the layers need, None where there is nothing to be told, and
    something for `prepare`. `prepare(it)` does the rest, piece by piece: it yields the sizes of the
    layers once they are known, and the name and the seconds of each program that it compiled, None
    in their place where it compiled nothing. Whatever either raises is kept for the outcome.
    """

    def __init__(
        self,
        plan: Callable[[], tuple[list[int] | None, Any]],
        prepare: Callable[[Any], Iterator[list[int] | tuple[str, float | None]]],
    ):
        self._stopped = threading.Event()
        self._d_state: list[int] | None = None
        self._compiled: list[tuple[str, float]] = []
        self._start, self._end = time.perf_counter(), None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="rehearsal")
        self._planned: Future[Any] = self._executor.submit(plan)
        self._prepared: Future[None] = self._executor.submit(self._play, prepare)

    def _play(self, prepare: Callable[[Any], Iterator[Any]]) -> None:
        try:
            for piece in prepare(self._planned.result()[1]):
                if isinstance(piece, list):
                    self._d_state = piece
                elif piece[1] is not None:
                    self._compiled.append(piece)
                if self._stopped.is_set():
                    return
        finally:
            self._end = time.perf_counter()

    def ranks(self) -> list[int] | None:
        """The ranks that the layers need, None if they could not be told; waits for the plan."""
        return None if self._planned.exception() else self._planned.result()[0]

    def finish(self) -> Outcome:
        """Wait for the end; what became of it."""
        error = self._prepared.exception()
        self._executor.shutdown()
        return Outcome(
            d_state=self._d_state,
            compiled=self._compiled,
            seconds=(self._end or time.perf_counter()) - self._start,
            error=None if error is None else f"{type(error).__name__}: {error}",
        )

    def cancel(self) -> None:
        """End it after the piece that it is at; waits for that."""
        self._stopped.set()
        self._executor.shutdown(cancel_futures=True)
