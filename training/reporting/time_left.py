"""Estimate of a run's remaining time."""

from .events import Event

_SMOOTHING = 0.3  # weight of the newest step rate in the running mean


class TimeLeft:
    """Estimates the seconds that a run still needs.

    The rate is a running mean of the steps per second since the last change of the program: a
    shrink or a recompilation makes earlier rates meaningless, so the mean restarts after it. Future
    evaluations are assumed to take as long as the last one.
    """

    def __init__(self):
        self._rate: float | None = None
        self._stale = True
        self._step = 0
        self._evaluation_step: int | None = None
        self._evaluation_share = 0.0  # seconds of evaluation for each step

    def write(self, event: Event) -> None:
        """Takes one event."""
        match event["event"]:
            case "start":
                # No evaluation can come before this step, so that the first one has a distance too.
                self._evaluation_step = event["step"]
            case "resume":
                self._evaluation_step = event["step"]
                self._stale = True
            case "compile" if event.get("what") != "eval step":
                self._stale = True
            case "shrink" if any(row["before"] != row["after"] for row in event["layers"]):
                self._stale = True
            case "eval" if event["split"] == "validation":
                start, step = self._evaluation_step, event["step"]
                if start is not None and step > start and event.get("duration") is not None:
                    self._evaluation_share = event["duration"] / (step - start)
                self._evaluation_step = step
            case "train":
                rate = event.get("steps_per_second")
                if rate:  # not null, not zero
                    old = self._rate
                    if self._stale or old is None:
                        self._rate = float(rate)
                    else:  # the mean of the times, not of the rates: times are what adds up
                        self._rate = 1 / ((1 - _SMOOTHING) / old + _SMOOTHING / rate)
                    self._stale = False
        self._step = max(self._step, event["step"])

    def rewind(self, step: int) -> None:
        """The run has gone back to this step."""
        self._step, self._evaluation_step, self._stale = step, step, True

    @property
    def steps_per_second(self) -> float | None:
        """The current rate; None before the first one is known."""
        return self._rate

    def seconds(self, total_steps: int | None) -> float | None:
        """Seconds from the last event to the end of the run; None while nothing is known."""
        if total_steps is None or self._rate is None:
            return None
        return max(0, total_steps - self._step) * (1 / self._rate + self._evaluation_share)
