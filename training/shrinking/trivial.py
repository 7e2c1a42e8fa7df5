"""The loss of the best constant answer, which a model has to beat."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from data.task import Split, Task
from zoo.masks import within

from ..model.objective import OBJECTIVES

PER_STEP = ("regression", "language", "recall")
"""The kinds of tasks with a label at every step."""
MOST = 2000
"""Training sequences whose labels are counted."""


def trivial_loss(task: Task, judged: Split) -> float:
    """Mean loss on `judged` of the constant answer that training labels make best.

    The frequencies of the classes, or of the tokens; the mean of the values.
    """
    objective, answer = OBJECTIVES[task.kind].of(task), _best_constant(task)
    batch = judged.take(np.arange(len(judged)))
    steps = (task.length,) if task.kind in PER_STEP else ()
    outputs = jnp.broadcast_to(jnp.asarray(answer, jnp.float32), (len(judged), *steps, len(answer)))
    totals = eqx.filter_jit(objective.totals)  # step by step it is dozens of programs
    return totals(outputs, batch, jnp.ones(len(judged))).means()[0]


def _best_constant(task: Task) -> Float[np.ndarray, " outputs"]:
    """Logits of the classes or tokens, or values."""
    train = task.splits["train"]
    size = min(MOST, len(train))
    rows = np.unique(np.linspace(0, len(train) - 1, size).astype(int))
    labels, lengths = train.labels[rows], train.lengths
    known = None if train.label_mask is None else train.label_mask[rows]
    if task.kind in PER_STEP and lengths is not None:
        inside = np.asarray(within(jnp.asarray(lengths[rows]), task.length))
        labels, known = labels[inside], None if known is None else known[inside]
    if task.kind in ("regression", "values", "multilabel"):
        labels = labels.reshape(-1, task.outputs)
        known = np.ones_like(labels, bool) if known is None else known.reshape(labels.shape)
        count = np.sum(known, axis=0)
        total = np.sum(labels, axis=0, where=known, dtype=np.float64)
        if task.kind == "multilabel":
            return np.log((total + 1) / (count - total + 1))
        return total / np.maximum(count, 1)
    counts = np.bincount(labels[labels >= 0].astype(int).ravel(), minlength=task.outputs) + 1
    return np.log(counts / counts.sum())
