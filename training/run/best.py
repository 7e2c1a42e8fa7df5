"""The best checkpoint of a run by validation, since its layers were last cut."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model.objective import Measure
from .checkpoint import Checkpoints
from .held import HeldState
from .session import Session


class Best:
    """Keeps the best state by validation with the current sizes of the layers. A cut resets the
    record, since the model is another one. `memory` is its whole state: the step, the sizes and the
    validation measures; None while nothing is kept.
    """

    def __init__(self, run_folder: Path, is_wanted: bool):
        self._folder, self._is_wanted = run_folder / "best", is_wanted
        self._checkpoints: Checkpoints | None = None
        self.memory: dict[str, Any] | None = None

    @property
    def checkpoints(self) -> Checkpoints:
        """Where the state is."""
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self._folder, keep=1)
        return self._checkpoints

    @property
    def step(self) -> int | None:
        """The step of the state that is kept, None if there is none."""
        if self.memory is None or not self._folder.is_dir():
            return None
        step = self.memory["step"]
        return step if step in self.checkpoints.steps() else None

    def note(
        self, step: int, d_state: list[int], measured: Mapping[str, float], measure: Measure
    ) -> bool:
        """Whether to keep the state after `step` with the validation result `measured`: if it is
        better than all others with these sizes.
        """
        value, before = measured[measure.key], self.memory
        if not self._is_wanted or not math.isfinite(value):
            return False
        best = before["validation"] if before and before["d_state"] == d_state else None
        if best is not None and measure.better(best[measure.key], value):
            return False
        self.memory = {"step": step, "d_state": d_state, "validation": dict(measured)}
        return True

    def keep(self, session: Session, metadata: dict[str, Any]) -> None:
        """Save the state, replacing the one before."""
        session.check_finite()
        with session.clock.phase("checkpoint"):
            if (self.checkpoints.latest() or -1) >= session.step:
                self.checkpoints.forget_from(session.step)  # left by a process that got further
            self.checkpoints.save(session.step, session.state, metadata)

    def recall(self, memory: dict[str, Any] | None) -> None:
        """Continue with the `memory` of an earlier run, unless the state that it names is gone. It
        is gone if a process got further than its last checkpoint. The run then reaches the same
        better state again.
        """
        self.memory = memory
        if self.step is None:
            self.memory = None

    def result(self, session: Session) -> dict[str, Any] | None:
        """The summary's entry on the best state, with its measures on the test split; None without
        one."""
        if self.memory is None:
            return None
        self.checkpoints.wait()
        if self.step is None:
            return None
        test = session.results["test"]
        if self.step != session.step:
            with session.clock.phase("evaluate"):
                state = self.checkpoints.arrays(self.step, session.state)
                larger = session.held.wide.params if session.held.is_padded else None
                totals = session.evaluation.totals(
                    HeldState(state, larger).wide, session.task.splits["test"]
                )
                test = session.objective.report(totals)
        return {"step": self.step, "validation": self.memory["validation"], "test": test}

    def close(self) -> None:
        """Wait until the last save is complete."""
        if self._checkpoints is not None:
            self._checkpoints.close()
