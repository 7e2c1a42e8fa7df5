"""Recordings of a language model's layers, block by block, with little memory. `record` runs the
whole model forward and backward in one program, which grows with its depth and stores the outputs
of every block. Here one program runs one block, forward, and later backward from the stream that
came in. The numbers are those of `record`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from zoo import LanguageModel

from .record import Recorder


class BlockRecord(NamedTuple):
    """Recordings of one layer on some sequences."""

    inputs: Float[np.ndarray, "b L d_model"]
    """Its inputs."""
    gradients: Float[np.ndarray, "b L d_model"]
    """The gradients of a random combination of the logits by its outputs."""


def record_blocks(
    model: LanguageModel, tokens: Int[np.ndarray, "b L"], keys: Key[Array, " b"]
) -> list[BlockRecord]:
    """The layers of `model` on `tokens`, in order.

    The combination of the logits has normal weights, drawn from a key for each sequence.
    """
    model = eqx.nn.inference_mode(model)
    h = model.embedding.weight[jnp.asarray(tokens)]
    streams = []
    for block in model.blocks:
        streams.append(h)
        h = _forward(block, h)
    dh = _from_head(eqx.tree_at(lambda m: m.blocks, model, ()), h, keys)
    records = []
    for block in reversed(model.blocks):
        inputs, gradients, dh = _backward(block, streams.pop(), dh)
        records.append(BlockRecord(np.asarray(inputs), np.asarray(gradients)))
    return records[::-1]


@eqx.filter_jit
def _forward(block: Any, h: Float[Array, "b L d_model"]) -> Float[Array, "b L d_model"]:
    return jax.vmap(lambda x: block(x, eqx.nn.State(block))[0])(h)


@eqx.filter_jit
def _from_head(
    model: LanguageModel, h: Float[Array, "b L d_model"], keys: Key[Array, " b"]
) -> Float[Array, "b L d_model"]:
    """The gradient by the stream after the last block, sequence by sequence."""

    def one(inputs: Any) -> Any:
        h, key = inputs
        logits, back = jax.vjp(model.logits, h)
        key = jax.random.fold_in(key, 0)
        return back(jax.random.normal(key, logits.shape, logits.dtype))[0]

    return jax.lax.map(one, (h, keys))


@eqx.filter_jit
def _backward(
    block: Any, h: Float[Array, "b L d_model"], dh: Float[Array, "b L d_model"]
) -> tuple[Array, Array, Array]:
    """The layer's inputs, the gradient by its output, and the gradient by the stream before the
    block."""

    def one(h: Array, dh: Array) -> tuple[Array, Array, Array]:
        def run(h: Array, added: Array) -> tuple[Array, Array]:
            seen: list[Array] = []

            def see(u: Array) -> Array:
                seen.append(u)
                return added

            watched = eqx.tree_at(lambda b: b.ssm, block, Recorder(block.ssm, see))
            return watched(h, eqx.nn.State(watched))[0], seen[0]

        zeros = jnp.zeros_like(h)
        _, back, inputs = jax.vjp(run, h, zeros, has_aux=True)
        before, gradients = back(dh)
        return inputs, gradients, before

    return jax.vmap(one)(h, dh)
