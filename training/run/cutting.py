"""The steps of a shrink: its plan, the smaller state, and its description."""

from typing import Any

import equinox as eqx

from compress import AbstractPolicy, Plan, compress

from ..shrinking.shrinker import Shrinker
from .interrupt import Diverged
from .session import Session
from .step import TrainState


class Cutting:
    """Cuts a state as the configuration says, and changes nothing of the run itself."""

    def __init__(self, session: Session, shrinker: Shrinker):
        self._session, self._shrinker = session, shrinker

    @property
    def cut_at(self) -> int | None:
        """In mode `auto`, the step of the last cut; None if there is none, and in other modes."""
        automatic = self._shrinker.automatic
        return None if automatic is None else automatic.cut_at

    def plan(self, state: TrainState, step: int, policy: AbstractPolicy | None = None) -> Plan:
        """The plan for `state` after `step`, by `policy` or as configured.

        Raises `Diverged` for a model without HSVs.
        """
        model = self._session.model_of(state)
        try:
            return self._shrinker.plan(model, state.norm_state, step, policy)
        except ValueError as error:
            raise Diverged(f"cannot shrink at step {step}: {error}") from error

    def cut(self, state: TrainState, planned: Plan) -> tuple[Any, TrainState]:
        """The model that the plan makes of `state`, and the state with it."""
        model, how = self._session.model_of(state), self._session.config.compression.moments
        after, opt_state = compress(model, state.opt_state, plan=planned, moments=how)
        params = eqx.filter(after, eqx.is_array)
        return after, state._replace(params=params, opt_state=opt_state)

    def describe(self, planned: Plan, after: Any, sizes: list[int]) -> list[dict[str, Any]]:
        """The entries of the "shrink" event on the layers, which have `sizes` states after it.
        `after` is the model of `cut`; the layers have more states if the cut is not taken.
        """
        return self._shrinker.reduction.describe(planned, after, sizes)
