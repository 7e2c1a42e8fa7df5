"""The wall time of a run, by phase."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Wall seconds by phase. A phase inside another one stops the outer one's time."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.perf_counter()

    def _account(self) -> None:
        now = time.perf_counter()
        phase = self._running[-1] if self._running else "other"
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything inside counts as `name`."""
        self._account()
        self._running.append(name)
        try:
            yield
        finally:
            self._account()
            self._running.pop()

    def add(self, earlier: Mapping[str, float]) -> None:
        """Add the times of a run before its interruption, by phase as `read` gives them."""
        for name, seconds in earlier.items():
            if name != "total":
                self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def move(self, seconds: float, before: str, after: str) -> None:
        """Move `seconds` from the phase `before` to the phase `after`."""
        self._account()
        self.seconds[before] = self.seconds.get(before, 0.0) - seconds
        self.seconds[after] = self.seconds.get(after, 0.0) + seconds

    def read(self) -> dict[str, float]:
        """Seconds by phase until now, and their "total"."""
        self._account()
        return {**self.seconds, "total": sum(self.seconds.values())}
