"""Losses and measures: one objective for each kind of task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite, log
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from data.task import Batch, Kind, Task
from zoo.masks import within


class Totals(NamedTuple):
    """Sums over sequences or their steps, added up on the device and fetched on request."""

    loss: Float[Array, ""]
    right: Float[Array, ""]
    """Correct answers; for regression, absolute errors."""
    number: Float[Array, ""]
    """The number of summands: sequences, or steps that are not padding."""
    table: Float[Array, "classes answers"]
    """Sequences by class and answer; for multi-label tasks, by label and true and false positives
    and negatives; empty if not counted."""

    @classmethod
    def zero(cls, rows: int = 0, columns: int = 0) -> "Totals":
        """Nothing, with a table of this size."""
        return cls(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()), jnp.zeros((rows, columns)))

    def means(self) -> tuple[float, float]:
        """Mean loss and share of correct answers; waits for the device."""
        loss, right, number = (float(x) for x in jax.device_get(self[:3]))
        number = max(number, 1e-9)  # where no label is known
        return loss / number, right / number


@dataclass(frozen=True)
class Measure:
    """A measure of a model's quality, computed from the mean loss and the correct answers."""

    key: str
    """Its name in the log."""
    label: str
    """Its name in reports."""
    of: Callable[[float, float, np.ndarray], float]
    """The function of the mean loss, the share of correct answers and the table."""
    is_share: bool = False
    """Whether it is a share, shown in per cent."""
    higher_is_better: bool = False
    needs_table: bool = False
    """Whether it needs the table, and is missing without one."""

    def is_there(self, table: np.ndarray) -> bool:
        """Whether it can be made, with this table."""
        return not self.needs_table or table.size > 0

    def show(self, value: float | int | None, missing: str = "not finite") -> str:
        """The value as text; `missing` if there is none."""
        if value is None or not isfinite(value):
            return missing
        return f"{100 * value:.2f} %" if self.is_share else f"{value:.4g}"

    def better(self, new: float | int | None, old: float | int | None) -> bool:
        """Whether `new` is at least as good as `old`; None is worse than any number."""
        if new is None or old is None:
            return old is None
        return new >= old if self.higher_is_better else new <= old


@dataclass(frozen=True)
class Objective:
    """The loss and the measures of one kind of task."""

    loss: str
    """The name of the loss in reports."""
    measures: tuple[Measure, ...]
    """The measures beside the loss; the first one is the main measure."""
    terms: Callable[[Array, Array], tuple[Array, Array]]
    """Losses and correct answers (or absolute errors), one for each label, from outputs and labels;
    with `per_entry` one for each entry of a label."""
    asked: Callable[[Array], Array] | None = None
    """Mask of the steps that count, from the labels, if not all do."""
    per_entry: bool = False
    """Whether a label has k entries: values, or labels that hold or do not."""
    tabulate: Callable[[Array, Array], Array] | None = None
    """From outputs and labels to the table of each sequence, [B, rows, columns]."""
    table: tuple[int, int] = (0, 0)
    """Rows and columns of the table."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in the loss."""

    @property
    def measure(self) -> Measure:
        """The main measure."""
        return self.measures[0]

    def of(self, task: Task) -> "Objective":
        """The objective of this kind for `task`, which says how many classes there are."""
        rows = task.outputs if self.tabulate is not None and task.outputs <= MOST_CLASSES else 0
        columns = {"multilabel": 4}.get(task.kind, rows) if rows else 0
        return replace(self, table=(rows, columns), class_weights=task.class_weights)

    def zero(self) -> Totals:
        """Empty totals."""
        return Totals.zero(*self.table)

    def totals(
        self, outputs: Float[Array, "B ..."], batch: Batch, weights: Float[Array, " B"]
    ) -> Totals:
        """Sums over a batch. Sequences have weights. Steps after the end and unknown labels are
        excluded."""
        labels = jnp.asarray(batch.labels)
        losses, right = self.terms(outputs, labels)
        shares = _spread(weights, losses.ndim)
        if outputs.ndim == 3 and batch.lengths is not None:
            within_steps = inside(batch.lengths, losses.shape[1])
            shares = shares * _spread(within_steps, losses.ndim)
        if self.asked is not None:
            shares = shares * self.asked(labels)
        if batch.label_mask is not None:
            shares = shares * jnp.asarray(batch.label_mask)
        shares = jnp.broadcast_to(shares, losses.shape)
        if self.class_weights is not None:
            losses = losses * jnp.asarray(self.class_weights)[labels]
        # of k values or labels each counts for a k-th of its step or sequence
        parts = losses.shape[-1] if self.per_entry else 1
        table = jnp.zeros(self.table)
        if self.tabulate is not None and self.table[0]:
            table = jnp.einsum("b...,b->...", self.tabulate(outputs, labels), weights)
        return Totals(
            jnp.sum(losses * shares) / parts,
            jnp.sum(right * shares) / parts,
            jnp.sum(shares) / parts,
            table,
        )

    def report(self, totals: Totals) -> dict[str, float]:
        """The mean loss and every measure by its key; waits for the device."""
        loss, right = totals.means()
        table = np.asarray(totals.table)
        measures = {m.key: m.of(loss, right, table) for m in self.measures if m.is_there(table)}
        return {"loss": loss, **measures}


MOST_CLASSES = 256
"""Most classes for which a table is made."""


def inside(
    lengths: Int[Array | np.ndarray, " B"] | None, steps: int
) -> Float[Array, "B L"] | Float[Array, ""]:
    """1 for the steps of each sequence, 0 for its padding."""
    if lengths is None:
        return jnp.ones(())
    return within(jnp.asarray(lengths), steps).astype(jnp.float32)


def is_asked(labels: Int[Array | np.ndarray, "*B L"]) -> Bool[Array, "*B L"]:
    """Mask of the steps with a question in recall tasks."""
    return jnp.asarray(labels) >= 0


def _spread(x: Array, ndim: int) -> Array:
    """`x` with axes of length 1 behind its own."""
    return x.reshape(*x.shape, *[1] * (ndim - x.ndim))


def _cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    # a label below zero asks for nothing, and its loss does not count
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return losses, (jnp.argmax(logits, axis=-1) == labels).astype(losses.dtype)


def _each_label(logits: Array, labels: Array) -> tuple[Array, Array]:
    losses = optax.sigmoid_binary_cross_entropy(logits, labels)
    return losses, ((logits > 0) == (labels > 0.5)).astype(losses.dtype)


def _errors(values: Array, labels: Array) -> tuple[Array, Array]:
    return (values - labels) ** 2, jnp.abs(values - labels)


def _confusion(logits: Array, labels: Array) -> Array:
    """Of each sequence a one in the row of its class and the column of the answer."""
    classes = logits.shape[-1]
    said = jax.nn.one_hot(jnp.argmax(logits, axis=-1), classes)
    return jax.nn.one_hot(labels, classes)[:, :, None] * said[:, None, :]


def _positives(logits: Array, labels: Array) -> Array:
    """Of each label true positives, false positives, false negatives and true negatives."""
    said, true = logits > 0, labels > 0.5
    cases = (said & true, said & ~true, ~said & true, ~said & ~true)
    return jnp.stack(cases, axis=-1).astype(jnp.float32)


def macro_f1(hits: np.ndarray, said: np.ndarray, true: np.ndarray) -> float:
    """The mean over the classes that occur of 2 hits / (said + true)."""
    both = said + true
    return float(np.mean(2 * hits[both > 0] / both[both > 0])) if np.any(both > 0) else 0.0


def _macro_f1_of_classes(_: float, __: float, table: np.ndarray) -> float:
    return macro_f1(np.diag(table), table.sum(axis=0), table.sum(axis=1))


def _macro_f1_of_labels(_: float, __: float, table: np.ndarray) -> float:
    hits, false, missed, _rest = table.T
    return macro_f1(hits, hits + false, hits + missed)


ACCURACY = Measure("accuracy", "accuracy", lambda _, right, __: right, True, True)
_F1 = Measure("macro_f1", "macro-F1", _macro_f1_of_classes, True, True, needs_table=True)
_MSE = Measure("mse", "MSE", lambda loss, _, __: loss)
_MAE = Measure("mae", "MAE", lambda _, error, __: error)
_CLASSES = Objective("cross-entropy (nats)", (ACCURACY, _F1), _cross_entropy, tabulate=_confusion)
_VALUES = Objective("mean squared error", (_MSE, _MAE), _errors, per_entry=True)

OBJECTIVES: Mapping[Kind, Objective] = MappingProxyType(
    {
        "classification": _CLASSES,
        "pair": _CLASSES,
        "multilabel": Objective(
            "binary cross-entropy (nats)",
            (ACCURACY, replace(_F1, of=_macro_f1_of_labels)),
            _each_label,
            tabulate=_positives,
            per_entry=True,
        ),
        "values": _VALUES,
        "regression": _VALUES,
        "language": Objective(
            "cross-entropy (nats)",
            (
                Measure(
                    "bits_per_character", "bits per character", lambda loss, _, __: loss / log(2)
                ),
                ACCURACY,
            ),
            _cross_entropy,
        ),
        "recall": replace(_CLASSES, measures=(ACCURACY,), asked=is_asked, tabulate=None),
    }
)
