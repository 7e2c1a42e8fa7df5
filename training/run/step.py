"""The programs on the device: training steps, many in one dispatch, and evaluation steps."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from data.task import Batch
from zoo import in_precision
from zoo.layers.half import Precision

from ..model.auxiliary import Join
from ..model.forward import run_batch
from ..model.network import with_static
from ..model.objective import Objective, Totals


class TrainState(NamedTuple):
    """Everything that a training step changes. All leaves are arrays."""

    params: Any
    """The model's arrays (`eqx.partition(model, eqx.is_array)`)."""
    norm_state: eqx.nn.State
    opt_state: optax.OptState
    step: Int[Array, ""]
    """Optimizer steps done."""


DropoutKeys = Callable[[PRNGKeyArray, int], Any]
"""From the key of a step to those of its sequences."""

DROPOUT_KEYS: Mapping[str, DropoutKeys] = {
    "sequence": jax.random.split,
    "batch": lambda key, size: jax.vmap(lambda _: key)(jnp.arange(size)),
}
"""By the name in `network.dropout_mask`."""


def make_train_steps(
    static: Any,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    join: Join | None = None,
    outputs: NamedSharding | None = None,
    dropout_keys: DropoutKeys = jax.random.split,
    precision: Precision = "float32",
) -> Callable[..., tuple[TrainState, Totals]]:
    """The jitted function `(state, totals, batches, count, key, arrays=()) -> (state, totals)`.

    `batches` is a `Batch` of arrays [K, B, ...]: K batches, of which the first `count` are trained
    on, one step each; a traced count lets one program serve every dispatch. The state and the
    totals, to which the steps' are added, are donated. Dropout of step k draws from `fold_in(key,
    k)`. `join` adds terms to the loss, using `arrays` (`training.model.auxiliary`); the totals
    are those of the task's own loss. `outputs` is where the results go on several devices
    (`training.run.placement`), `dropout_keys` one of `DROPOUT_KEYS`, `precision` what the task's
    own loss is worked out in (`zoo.in_precision`): parameters and moments are what they are.

    The programs differ by the shapes of the state alone: after a shrink, the same function is
    traced once more.
    """

    def loss_of(params, norm_state, batch: Batch, key, arrays, step):
        model = with_static(params, static)
        size = len(batch.labels)
        computing = in_precision(model, precision)
        outputs, norm_state = run_batch(computing, norm_state, batch, dropout_keys(key, size))
        totals = objective.totals(outputs, batch, jnp.ones(size))
        loss = totals.loss / jnp.maximum(totals.number, 1e-9)
        if join is not None:
            loss = join(loss, model, outputs, batch, arrays, step)
        return loss, (norm_state, totals)

    def train_step(state: TrainState, totals: Totals, batch: Batch, key: PRNGKeyArray, arrays):
        differentiable, fixed = eqx.partition(state.params, eqx.is_inexact_array)
        (_, (norm_state, seen)), grads = jax.value_and_grad(
            lambda p: loss_of(
                eqx.combine(p, fixed),
                state.norm_state,
                batch,
                jax.random.fold_in(key, state.step),
                arrays,
                state.step,
            ),
            has_aux=True,
        )(differentiable)
        updates, opt_state = optimizer.update(grads, state.opt_state, differentiable)
        params = eqx.combine(optax.apply_updates(differentiable, updates), fixed)
        totals = jax.tree.map(jnp.add, totals, seen)
        return TrainState(params, norm_state, opt_state, state.step + 1), totals

    def train_steps(state, totals, batches: Batch, count, key, arrays=()):
        def body(k, carry):
            state, totals = carry
            return train_step(state, totals, jax.tree.map(lambda x: x[k], batches), key, arrays)

        return jax.lax.fori_loop(0, count, body, (state, totals))

    return jax.jit(train_steps, donate_argnums=(0, 1), out_shardings=outputs)


def make_eval_step(
    static: Any, objective: Objective, outputs: NamedSharding | None = None
) -> Callable[..., Totals]:
    """The jitted function `(params, norm_state, totals, batch, mask) -> totals`.

    Running BatchNorm statistics, no dropout; rows where `mask` is false are excluded.
    """
    static = eqx.nn.inference_mode(static)

    def eval_step(
        params: Any,
        norm_state: eqx.nn.State,
        totals: Totals,
        batch: Batch,
        mask: Bool[Array, " B"],
    ) -> Totals:
        outputs, _ = run_batch(with_static(params, static), norm_state, batch)
        seen = objective.totals(outputs, batch, mask.astype(jnp.float32))
        return jax.tree.map(jnp.add, totals, seen)

    return jax.jit(eval_step, out_shardings=outputs)
