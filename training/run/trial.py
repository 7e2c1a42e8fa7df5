"""Cuts on trial, in modes `pragmatic` and `auto`: kept if they hold, otherwise taken back."""

import json
from pathlib import Path
from typing import Any

from ..model.objective import Measure
from ..reporting.events import write_json
from ..settings.config import RunConfig
from ..settings.errors import UsageError
from ..settings.schedule import shrink_steps
from .checkpoint import Checkpoints


class Trial:
    """The validation measure before the cut on trial, and the saved state. A cut is judged when the
    next one is due, the last one after the same time as the others. `memory` is its whole state.
    While a cut is taken back, a file beside the run's folders says so: if the process dies, its
    successor completes the reversal.
    """

    def __init__(self, config: RunConfig[Any, Any], run_folder: Path):
        self._slack = config.compression.slack
        self.steps: tuple[int, ...] = ()
        """The step of the judgement."""
        if config.compression.mode == "pragmatic":
            cuts = shrink_steps(config.compression, config.steps)
            between = cuts[-1] - cuts[-2] if len(cuts) > 1 else max(cuts, default=0)
            end = min(max(cuts, default=0) + between, config.steps)
            self.steps = tuple(sorted({*cuts, end} - {0}))
        self._folder = run_folder / "before_cut"
        self._checkpoints: Checkpoints | None = None
        self._note = run_folder / "taking_back.json"
        self.failed: dict[str, Any] | None = None
        """The note on the cut that is being taken back; None without one."""
        if self._note.exists():
            try:
                self.failed = json.loads(self._note.read_text())
            except ValueError as error:
                raise UsageError(
                    f"{self._note} must be JSON, as a run leaves it, got {error}"
                ) from None
        self.memory: dict[str, Any] = {"best": None, "d_state": None, "stopped": False}

    @property
    def checkpoints(self) -> Checkpoints:
        """The state before the cut on trial."""
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self._folder, keep=1)
        return self._checkpoints

    @property
    def saved_step(self) -> int:
        """The step of that state."""
        step = self.checkpoints.latest()
        if step is None:
            raise FileNotFoundError(f"{self._folder} holds no checkpoint of before the cut")
        return step

    def check_saved(self) -> None:
        """`UsageError` unless there is a state to go back to, now that a cut is taken back."""
        if not self._folder.is_dir() or self.checkpoints.latest() is None:
            raise UsageError(
                f"{self._note} says that a cut is being taken back, so {self._folder} must hold "
                "the checkpoint from before it, got none: remove the file to continue without it"
            )

    @property
    def stopped(self) -> bool:
        """Whether a cut has been taken back, after which there are no more."""
        return self.memory["stopped"]

    def passes(self, value: float, measure: Measure, d_state: list[int]) -> bool:
        """Whether the model does as well as before the cut on trial, within the slack.

        True also if nothing is on trial: the layers, with `d_state` states now, have not been cut.
        """
        best = self.memory["best"]
        if best is None or d_state == self.memory.get("d_state"):
            return True
        slack = self._slack if measure.higher_is_better else -self._slack
        return measure.better(value, best - slack)

    def note(self, value: float, d_state: list[int]) -> None:
        """What the next cut is judged by, and the states before it."""
        self.memory = {**self.memory, "best": value, "d_state": d_state}

    def save(self, step: int, arrays: Any, metadata: dict[str, Any]) -> None:
        """Save the state before a cut. Returns when that is done: a run saved later needs it."""
        self.checkpoints.save(step, arrays, metadata)
        self.checkpoints.wait()

    def begin_taking_back(self, failed: dict[str, Any], is_first: bool) -> None:
        """The cut has `failed`: from here on a run that is resumed takes it back first.

        `is_first`: of several processes, this is the one that writes.
        """
        self.failed = failed
        if is_first:
            write_json(self._note, failed)

    def end_taking_back(self, is_first: bool) -> None:
        """The state before the cut is the run's latest checkpoint."""
        self.failed = None
        if is_first:
            self._note.unlink()

    def stop(self) -> None:
        """No more cuts."""
        self.memory = {**self.memory, "stopped": True}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on with the `memory` of an earlier run."""
        self.memory = dict(memory)

    def close(self) -> None:
        """Wait until the last save is complete."""
        if self._checkpoints is not None:
            self._checkpoints.close()
