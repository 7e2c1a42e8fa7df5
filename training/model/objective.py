"""What a model is trained for and judged by: one objective for each kind of task."""

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

from data.task import Batch, Kind
from zoo.masks import within


class Totals(NamedTuple):
    """Sums over sequences or their steps, added up on the device and fetched when asked for."""

    loss: Float[Array, ""]
    right: Float[Array, ""]
    """Right answers; zero where there is no right or wrong."""
    number: Float[Array, ""]
    """What was summed over: sequences, or steps that are not padding."""

    @classmethod
    def zero(cls) -> "Totals":
        return cls(*(jnp.zeros(()) for _ in cls._fields))

    def means(self) -> tuple[float, float]:
        """Mean loss and share of right answers; waits for the device."""
        loss, right, number = (float(x) for x in jax.device_get(self))
        return loss / number, right / number


@dataclass(frozen=True)
class Measure:
    """A number that says how good a model is, made from the mean loss and the right answers."""

    key: str
    """Its name in the log."""
    label: str
    """Its name for people."""
    of: Callable[[float, float], float]
    """From the mean loss and the share of right answers."""
    is_share: bool = False
    """Whether it is a share, shown in per cent."""
    higher_is_better: bool = False

    def show(self, value: float | int | None, missing: str = "not finite") -> str:
        """The value for people; `missing` where there is none."""
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
    """How the outputs of a model are compared with the labels."""

    loss: str
    """What the loss is, for people."""
    measures: tuple[Measure, ...]
    """What is reported beside the loss; the first is the one that counts."""
    terms: Callable[[Array, Array], tuple[Array, Array]]
    """Losses and right answers, one for each sequence or each step, from outputs and labels."""
    asked: Callable[[Array], Array] | None = None
    """Which steps count, from the labels, where not all do."""

    @property
    def measure(self) -> Measure:
        """The measure that counts."""
        return self.measures[0]

    def totals(
        self, outputs: Float[Array, "B ..."], batch: Batch, weights: Float[Array, " B"]
    ) -> Totals:
        """Sums over a batch. A sequence counts by its weight; steps after its end do not count."""
        losses, right = self.terms(outputs, jnp.asarray(batch.labels))
        if losses.ndim == 2:
            weights = weights[:, None] * inside(batch.lengths, losses.shape[1])
        if self.asked is not None:
            weights = weights * self.asked(jnp.asarray(batch.labels))
        weights = jnp.broadcast_to(weights, losses.shape)
        return Totals(jnp.sum(losses * weights), jnp.sum(right * weights), jnp.sum(weights))

    def report(self, totals: Totals) -> dict[str, float]:
        """The mean loss and every measure by its key; waits for the device."""
        loss, right = totals.means()
        return {"loss": loss, **{m.key: m.of(loss, right) for m in self.measures}}


def inside(
    lengths: Int[Array | np.ndarray, " B"] | None, steps: int
) -> Float[Array, "B L"] | Float[Array, ""]:
    """1 for the steps of each sequence proper, 0 for its padding."""
    if lengths is None:
        return jnp.ones(())
    return within(jnp.asarray(lengths), steps).astype(jnp.float32)


def is_asked(labels: Int[Array | np.ndarray, "*B L"]) -> Bool[Array, "*B L"]:
    """Where a task of recall asks for a token."""
    return jnp.asarray(labels) >= 0


def _cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    # a label below zero asks for nothing, and its loss does not count
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return losses, (jnp.argmax(logits, axis=-1) == labels).astype(losses.dtype)


def _squared_error(values: Array, labels: Array) -> tuple[Array, Array]:
    errors = jnp.mean((values - labels) ** 2, axis=-1)
    return errors, jnp.zeros_like(errors)


ACCURACY = Measure("accuracy", "accuracy", lambda _, right: right, True, True)
_CLASSES = Objective("cross-entropy (nats)", (ACCURACY,), _cross_entropy)

OBJECTIVES: Mapping[Kind, Objective] = MappingProxyType(
    {
        "classification": _CLASSES,
        "pair": _CLASSES,
        "regression": Objective(
            "mean squared error",
            (Measure("mse", "MSE", lambda loss, _: loss),),
            _squared_error,
        ),
        "language": Objective(
            "cross-entropy (nats)",
            (
                Measure("bits_per_character", "bits per character", lambda loss, _: loss / log(2)),
                ACCURACY,
            ),
            _cross_entropy,
        ),
        "recall": replace(_CLASSES, asked=is_asked),
    }
)
