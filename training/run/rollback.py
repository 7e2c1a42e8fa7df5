"""Reverting of cuts; in mode `pragmatic` after their validation."""

from ..shrinking.shrinker import Shrinker
from .ahead import Ahead
from .saves import Saves
from .session import Session
from .trial import Trial


class Rollback:
    """Judges the last cut of a run, and takes it back for good if it does not hold."""

    def __init__(
        self, session: Session, shrinker: Shrinker, saves: Saves, trial: Trial, ahead: Ahead
    ):
        self._session, self._shrinker = session, shrinker
        self._saves, self._trial, self._ahead = saves, trial, ahead

    def judge(self, save: bool) -> bool:
        """Take the last cut back, or store the model's measure. Returns whether another cut may be
        tried.

        With `save`, the state is kept for the case that the next cut is taken back.
        """
        session, trial = self._session, self._trial
        if trial.stopped:
            return False
        measure, sizes = session.objective.measure, session.sizes
        with session.clock.phase("evaluate"):
            totals = session.measure(session.task.splits["validation"])
            value = session.objective.report(totals)[measure.key]
        if not trial.passes(value, measure, sizes):
            failed = {
                "from_step": session.step,
                "tried": sizes,
                "measured": value,
                "needed": trial.memory["best"],
            }
            trial.begin_taking_back(failed, session.placement.is_first)
            self.take_back()
            return False
        trial.note(value, sizes)
        if save:
            with session.clock.phase("checkpoint"):
                trial.save(session.step, session.state, self._saves.metadata())
        return True

    def take_back(self) -> None:
        """Go back, for good, to before the cut that has failed."""
        session, trial = self._session, self._trial
        self._ahead.cancel()
        session.reporter.finish()  # a cut that is still to be reported is saved then
        self._saves.restore_from(trial.checkpoints, trial.saved_step)
        trial.stop()
        self._shrinker.take_back()
        session.checkpoints.forget_from(session.step)
        session.reporter.rewind(session.step)
        session.emit("rollback", **(trial.failed or {}), d_state=session.sizes)
        self._saves.save_again()
        trial.end_taking_back(session.placement.is_first)
        self._ahead.compile_own_size()
