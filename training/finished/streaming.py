"""A trained model sample by sample."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from data.task import Task
from zoo import fixed_norms

from .inputs import as_sample, in_units


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
    """What the samples are of."""
    scaled: bool = False
    """Whether values are left as the model was trained on them; else in the units of the data."""

    def init_state(self) -> Any:
        """The carry before the first sample."""
        return self.model.init_state()

    def step(self, carry: Any, sample: Any, interval: Any = None) -> tuple[Any, Any]:
        """One sample: the next carry, and the outputs.

        `sample` is as in the splits of the task, before normalisation: channels [c], or a token.
        `interval` is the time before it, a number, for tasks that have intervals. The outputs are
        values at this sample, logits of the next token, or logits of the class of the sequence so
        far.
        ValueError for a sample of other channels, and where the interval is missing or too much.
        """
        timed = self.task.splits["train"].intervals is not None
        if (interval is not None) != timed:
            allowed = "the time before the sample" if timed else "None for this task"
            raise ValueError(f"`interval` must be {allowed}, got {interval}")
        given = () if interval is None else (np.float32(interval),)
        carry, outputs = _step(self.model, carry, as_sample(self.task, sample), *given)
        return carry, outputs if self.scaled else in_units(self.task, outputs)


def stream_of(model: Any, state: eqx.nn.State, task: Task, scaled: bool = False) -> Stream:
    """`model` as a stream. A ValueError in one sentence for one that cannot be."""
    stream = Stream(fixed_norms(model, state), task, scaled)
    jax.eval_shape(stream.init_state)
    return stream


@eqx.filter_jit
def _step(model: Any, carry: Any, sample: Any, *interval: Any) -> tuple[Any, Any]:
    return model.step(carry, sample, *interval)
