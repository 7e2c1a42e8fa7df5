"""A trained model sample by sample."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from data.task import Task
from zoo import fixed_norms

from .inputs import as_sample


@dataclass(frozen=True)
class Stream:
    """A model that takes one sample at a time.

        carry = stream.init_state()
        carry, outputs = stream.step(carry, sample)

    The carry is a pytree of arrays. You can store it, pass it on, or return to an earlier one.
    """

    model: Any
    """The model at inference, with norms of one sample."""
    task: Task
    """The task of the samples."""

    def init_state(self) -> Any:
        """The carry before the first sample."""
        return self.model.init_state()

    def step(self, carry: Any, sample: Any, interval: float | None = None) -> tuple[Any, Any]:
        """One sample: the next carry, and the outputs.

        `sample` is as in the splits of the task, before normalisation: channels [c], or a token.
        `interval` is the time before it, for tasks that have intervals. The outputs are values at
        this sample, logits of the next token, or logits of the class of the sequence so far.
        """
        given = () if interval is None else (np.float32(interval),)
        return _step(self.model, carry, as_sample(self.task, sample), *given)


def stream_of(model: Any, state: eqx.nn.State, task: Task) -> Stream:
    """`model` as a stream. ValueError if the model cannot stream."""
    stream = Stream(fixed_norms(model, state), task)
    jax.eval_shape(stream.init_state)
    timed = task.splits["train"].intervals is not None
    if timed and stream.model.interval is None:
        raise ValueError(
            "the layers of this model advance by intervals, which their steps do not take: predict "
            "whole sequences"
        )
    return stream


@eqx.filter_jit
def _step(model: Any, carry: Any, sample: Any, *interval: Any) -> tuple[Any, Any]:
    return model.step(carry, sample, *interval)
