"""The automatic mode for your own training loop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from zoo.typing import checked

from ..methods import AbstractMethod, Data
from ..model.layers import layers_of
from ..model.stacks import unstacked
from ..plans import Plan
from ..policies import automatic, looks
from ..policies.dial import Dial
from ..policies.looks import Memory, Seen, certainty_of
from ..policies.search import Decided, on_training_too
from . import compress, plan


@dataclass(frozen=True, eq=False)
class Look:
    """The decision of `auto`, and its memory for the next call."""

    model: PyTree
    opt_state: PyTree
    memory: Any
    """For the next call, as it is."""
    why: str | None
    """The decision and its reason in words; None if no look was due."""
    plan: Plan | None = None
    """The plan of the cut; None without a cut."""


@dataclass(frozen=True, eq=False)
class _Memory:
    """The memory of looks, and the model and state from before a cut on trial."""

    numbers: Memory
    before: tuple[PyTree, PyTree] | None = None


@checked
def auto(
    model: PyTree,
    opt_state: PyTree = None,
    *,
    step: int,
    steps: int,
    loss: Callable[..., Any],
    trivial: float | int,
    batch: Any = None,
    method: AbstractMethod | None = None,
    memory: Any = None,
    dial: Dial | None = None,
    unit: float | int | None = None,
    training_loss: Callable[..., Any] | None = None,
    judged: int | None = None,
) -> Look:
    """Cut `model` if a run of `steps` steps, of which `step` are done, can afford it now.

    Call it after every few steps. It inspects the model up to ten times in a run: has anything
    been learned, has learning slowed, how few states keep the loss (`compress.policies.automatic`)?
    If the loss has not recovered a twentieth of the run later, a later call takes the cut back, and
    returns the model and the state from before it.

    - `loss(model)`: on sequences that are neither trained on nor in `batch`, always the same ones;
    - `trivial`: the loss of the best constant answer on them, such as log(classes);
    - `batch` or `method`: the method, as for `compress`; `batch` is short for `Data(batch=batch)`;
    - `memory`: the result of the previous call, None at first;
    - `dial`: the loss that may be given up (`Dial()`: 0.5 %);
    - `unit`: the loss that 100 % of the dial stands for: 1 for a cross-entropy where accuracy
      counts; the loss itself by default;
    - `training_loss(model)`: on sequences that are trained on; it may rise four times as far. Else
      an overfitted model is cut to what held-back sequences alone need;
    - `judged`: how many sequences or steps `loss` is a mean over; a cut may cost less with few.

    ValueError for a step outside 0 to `steps`, both or none of `batch` and `method`, `judged` below
    1; as `compress`.
    """
    _check(step, steps, batch, method, judged)
    known = _Memory(Memory()) if memory is None else memory
    dial = dial or Dial()
    is_due = automatic.is_due(dial, known.numbers, step, steps)
    is_judged = looks.is_judged(known.numbers, step, steps)
    if not is_due and not is_judged:
        return Look(model, opt_state, known, None)
    now = float(loss(model))
    unit, certainty = now if unit is None else unit, 1.0 if judged is None else certainty_of(judged)
    seen = Seen(step, steps, _sizes(model), now, trivial, unit, certainty=certainty)
    if is_judged:
        fails = automatic.verdict(dial, known.numbers, seen)
        if fails is not None:
            assert known.before is not None
            numbers = looks.taken_back(known.numbers)
            before, state = known.before
            return Look(before, state, _Memory(numbers), f"cut taken back: {fails}")
        known = _Memory(looks.held(known.numbers))
        if not is_due:
            return Look(model, opt_state, known, "the cut holds")
    weigh = method or Data(batch=batch)
    return _look(model, opt_state, weigh, (loss, training_loss), dial, known, seen)


def _check(step: int, steps: int, batch: Any, method: Any, judged: int | None) -> None:
    if not 0 <= step <= steps:
        raise ValueError(f"`step` must be in 0 to steps={steps}, got {step}")
    if (batch is None) == (method is None):
        given = "neither" if batch is None else "both"
        raise ValueError(f"one of `batch` and `method` must be given, got {given}")
    if judged is not None and judged < 1:
        raise ValueError(f"`judged` must be 1 or more, or None, got {judged}")


def _look(
    model: PyTree,
    opt_state: PyTree,
    method: AbstractMethod,
    losses: tuple[Callable[..., Any], Callable[..., Any] | None],
    dial: Dial,
    known: _Memory,
    seen: Seen,
) -> Look:
    memory = known.numbers
    asked = automatic.question(dial, memory, seen)
    if isinstance(asked, str):
        made = automatic.decision(dial, memory, seen, asked)
        return Look(model, opt_state, replace(known, numbers=made.memory), made.why)
    made_by: list[automatic.Decision] = []

    def decide(demanded: Sequence[int]) -> Sequence[int] | None:
        made_by.append(automatic.decision(dial, memory, seen, asked, demanded))
        return made_by[-1].ranks

    held_back, training = losses
    policy = Decided(
        held_back if training is None else on_training_too(held_back, training, model, seen.loss),
        asked.rise,
        decide,
        enough=None if dial.speed is None else enough_for(model, dial.speed),
        close=asked.close,
        most=asked.most,
        now=float(seen.loss),
        guess=memory.guess,
    ).gated(1.0)
    planned = plan(model, policy=policy, method=method)
    (made,) = made_by
    if all(row.cut is None for row in planned.layers):
        # where something was to be cut, ties have kept it all
        numbers = made.memory if made.ranks is None else looks.noted(memory, seen)
        return Look(model, opt_state, replace(known, numbers=numbers), made.why)
    smaller, smaller_state = compress(model, opt_state, plan=planned)
    after = _Memory(made.memory, (model, opt_state))
    return Look(smaller, smaller_state, after, made.why, planned)


def enough_for(model: PyTree, speed: float) -> Callable[[Sequence[int]], bool]:
    """Whether ranks make a step of `model` take `speed` times fewer operations.

    Operations are counted by weights, each of which is used once for every sample.
    """
    whole = sum(math.prod(x.shape) for x in jax.tree.leaves(model) if hasattr(x, "shape"))
    layers = [layer for _, layer in layers_of(unstacked(model))]

    def weights(layer: Any) -> int:
        return sum(math.prod(x.shape) for x in jax.tree.leaves(layer) if hasattr(x, "shape"))

    sizes = [layer.d_state for layer in layers]
    # a layer's weights are so many for each state, and some that are there with any number
    per_state = [
        weights(layer) - weights(eqx.filter_eval_shape(lambda x: x.resized(x.d_state - 1), layer))
        if layer.d_state > 1
        else 0
        for layer in layers
    ]

    def enough(ranks: Sequence[int]) -> bool:
        gone = sum((n - rank) * each for n, rank, each in zip(sizes, ranks, per_state, strict=True))
        return whole >= speed * (whole - gone)

    return enough


def _sizes(model: PyTree) -> tuple[int, ...]:
    return tuple(layer.d_state for _, layer in layers_of(unstacked(model)))
