"""The checkpoints of a run: their content, and how a run resumes from them."""

from typing import Any

from ..settings.errors import UsageError
from ..shrinking.shrinker import Shrinker
from .best import Best
from .checkpoint import Checkpoints, has_maps, shapes_of, shapes_of_moments
from .session import Session
from .trial import Trial


class Saves:
    """Saves and restores a run: its state, and the memory of its shrink schedule."""

    def __init__(self, session: Session, shrinker: Shrinker, trial: Trial, best: Best):
        self._session, self._shrinker, self._trial = session, shrinker, trial
        self._best = best
        self.step: int | None = None
        """The step that is saved, or was restored, last."""
        self.damaged: list[int] = []
        """Steps whose checkpoints could not be read when the run was restored."""

    def save(self) -> None:
        """Save everything that a resumed run needs, unless this step is saved already."""
        session = self._session
        if session.step == self.step:
            return
        self.step = session.step
        shrink = session.reporter.late
        if shrink is not None and shrink.step == session.step:
            shrink.saved = session.state, self.metadata()
            return
        session.reporter.finish()
        session.check_finite()
        session.reporter.save(session.step, session.state, self.metadata())

    def save_again(self) -> None:
        """Save this step even if a checkpoint of it was written before; waits until it is done."""
        self.step = None
        self.save()
        self._session.reporter.confirm()

    def metadata(self) -> dict[str, Any]:
        """The metadata of a checkpoint."""
        session = self._session
        return {
            "step": session.step,
            "d_state": session.sizes,
            "width": session.held.width,
            "maps": has_maps(session.state.params),
            "needed": self._shrinker.memory,
            "trial": self._trial.memory,
            "best": self._best.memory,
            "seconds": session.clock.read(),
            "phases": [dict(phase) for phase in session.phases],
        }

    def restore(self) -> bool:
        """Go back to the latest checkpoint that can be read; False if there are none at all.

        While a cut is being taken back, it is the checkpoint from before the cut. Unreadable later
        ones are listed in `damaged`, and removed. UsageError if none of the existing ones can be
        read.
        """
        trial, checkpoints = self._trial, self._session.checkpoints
        if trial.failed is not None:
            trial.check_saved()
            checkpoints = trial.checkpoints
        problem = ""
        for step in checkpoints.steps():
            try:
                metadata = self.restore_from(checkpoints, step)
            except Exception as error:  # whatever a damaged file makes its reader raise
                problem = problem or " ".join(f"{type(error).__name__}: {error}".split())[:200]
                self.damaged.append(step)
                continue
            self.step = step
            if self.damaged and self._session.placement.is_first:
                checkpoints.forget_from(step + 1)
            self._session.clock.add(metadata["seconds"])
            return True
        if self.damaged:
            raise UsageError(
                f"{self._session.folder / 'checkpoints'} must hold a checkpoint that can be read, "
                f"got damaged ones of steps {', '.join(map(str, self.damaged))} ({problem})"
            )
        return False

    def restore_best(self) -> bool:
        """Move a restored run to its best state by validation, if one is kept."""
        step = self._best.step
        if step is None:
            return False
        self.restore_from(self._best.checkpoints, step)
        self.step = step
        return True

    def restore_from(self, checkpoints: Checkpoints, step: int) -> dict[str, Any]:
        """Restore a saved state with everything except the clock. Returns its metadata."""
        session = self._session
        metadata = checkpoints.metadata(step)
        sizes = metadata["d_state"]
        width = metadata.get("width", sizes)
        maps = metadata.get("maps")
        like = session.state._replace(params=shapes_of(session.model, sizes, maps))
        like = like._replace(opt_state=shapes_of_moments(session.optimizer, like.params))
        larger = None if width == sizes else shapes_of(session.model, width, maps)
        session.held.hold(checkpoints.arrays(step, like), larger)
        session.step = step
        session.phases = metadata["phases"]
        self._shrinker.recall(metadata["needed"])
        self._trial.recall(metadata["trial"])
        self._best.recall(metadata.get("best"))
        return metadata
