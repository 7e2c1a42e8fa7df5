"""What runs on the device: training steps, many in one dispatch, and evaluation steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from zoo import BATCH_AXIS


class Metrics(NamedTuple):
    """Sums over sequences, added up on the device and fetched when somebody asks."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    sequences: Float[Array, ""]

    @classmethod
    def zero(cls) -> "Metrics":
        return cls(*(jnp.zeros(()) for _ in cls._fields))

    def means(self) -> tuple[float, float]:
        """Loss and accuracy; waits for the device."""
        loss, correct, sequences = (float(x) for x in jax.device_get(self))
        return loss / sequences, correct / sequences


class TrainState(NamedTuple):
    """Everything that a training step changes. All leaves are arrays."""

    params: Any
    """The model's arrays (`eqx.partition(model, eqx.is_array)`)."""
    norm_state: eqx.nn.State
    opt_state: optax.OptState
    step: Int[Array, ""]
    """Optimizer steps done."""


def make_train_steps(
    static: Any, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The jitted function `(state, metrics, inputs, labels, count, key) -> (state, metrics)`.

    `inputs` [K, B, ...] and `labels` [K, B] hold K batches, of which the first `count` are trained
    on, one step each; a traced count lets one program serve every dispatch. The state and the
    metrics, to which the steps' are added, are donated. Dropout of step k draws from
    `fold_in(key, k)`.

    The programs differ by the shapes of the state alone: after a shrink, the same function is
    traced once more.
    """

    def loss_of(params, norm_state, inputs, labels, key):
        model = eqx.combine(params, static)
        keys = jax.random.split(key, len(labels))
        logits, norm_state = jax.vmap(
            lambda x, state, key: model(x, state, key=key),
            in_axes=(0, None, 0),
            out_axes=(0, None),
            axis_name=BATCH_AXIS,
        )(inputs, norm_state, keys)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == labels)
        return loss, (norm_state, correct)

    def train_step(state: TrainState, metrics: Metrics, inputs, labels, key: PRNGKeyArray):
        differentiable, fixed = eqx.partition(state.params, eqx.is_inexact_array)
        (loss, (norm_state, correct)), grads = jax.value_and_grad(
            lambda p: loss_of(
                eqx.combine(p, fixed),
                state.norm_state,
                inputs,
                labels,
                jax.random.fold_in(key, state.step),
            ),
            has_aux=True,
        )(differentiable)
        updates, opt_state = optimizer.update(grads, state.opt_state, differentiable)
        params = eqx.combine(optax.apply_updates(differentiable, updates), fixed)
        metrics = Metrics(
            metrics.loss + loss * len(labels),
            metrics.correct + correct,
            metrics.sequences + len(labels),
        )
        return TrainState(params, norm_state, opt_state, state.step + 1), metrics

    def train_steps(state, metrics, inputs, labels, count, key):
        def body(k, carry):
            state, metrics = carry
            return train_step(state, metrics, inputs[k], labels[k], key)

        return jax.lax.fori_loop(0, count, body, (state, metrics))

    return jax.jit(train_steps, donate_argnums=(0, 1))


def make_eval_step(static: Any) -> Callable[..., Metrics]:
    """The jitted function `(params, norm_state, metrics, inputs, labels, mask) -> metrics`.

    Running BatchNorm statistics, no dropout; rows where `mask` is false do not count.
    """
    static = eqx.nn.inference_mode(static)

    def eval_step(
        params: Any,
        norm_state: eqx.nn.State,
        metrics: Metrics,
        inputs: Array,
        labels: Int[Array, " B"],
        mask: Bool[Array, " B"],
    ) -> Metrics:
        model = eqx.combine(params, static)
        logits, _ = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name=BATCH_AXIS)(
            inputs, norm_state
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = jnp.argmax(logits, axis=-1) == labels
        return Metrics(
            metrics.loss + jnp.sum(loss, where=mask),
            metrics.correct + jnp.sum(correct, where=mask),
            metrics.sequences + jnp.sum(mask),
        )

    return jax.jit(eval_step)
