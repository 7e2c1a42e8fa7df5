"""A language model whose equal blocks run in one scan, so that programs do not grow with depth."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import dynamic_index_in_dim, dynamic_update_index_in_dim
from jaxtyping import Array, Float, Int

from ..layers.affine import Linear, product
from ..layers.matrix import OfStack
from ..typing import Count, InputArray, checked
from .alike import equal_runs, stacked
from .block import AbstractBlock
from .language_model import LanguageModel
from .norm import SampleNorm


class Stack(eqx.Module):
    """Equal blocks, one after the other. Arrays have the blocks along their first axis."""

    blocks: AbstractBlock

    @property
    def size(self) -> int:
        """Number of blocks."""
        return jax.tree.leaves(eqx.filter(self.blocks, eqx.is_array))[0].shape[0]

    @checked
    def scan(self, function: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        """x through all blocks, `function(block, carry, x) -> (carry, x)`; the carries, and x."""
        weights = _weights(self.blocks)
        rest = eqx.tree_at(_weights, self.blocks, [None] * len(weights))
        arrays, static = eqx.partition(rest, eqx.is_array)

        def one(state: Any, inputs: Any) -> tuple[Any, None]:
            carries, x = state
            k, arrays = inputs
            block = eqx.combine(arrays, static)
            own = [OfStack(weight, k) for weight in weights]  # a slice would be a copy
            block = eqx.tree_at(_weights, block, own, is_leaf=lambda x: x is None)
            # carries are read and written in place: as inputs and outputs of the scan
            # they would be copied once more
            before = jax.tree.map(lambda c: dynamic_index_in_dim(c, k, keepdims=False), carries)
            after, x = function(block, before, x)
            carries = jax.tree.map(
                lambda c, new: dynamic_update_index_in_dim(c, new, k, 0), carries, after
            )
            return (carries, x), None

        places = jnp.arange(self.size, dtype=jnp.int32)
        carry = jax.tree.map(jnp.asarray, carry)
        return jax.lax.scan(one, (carry, x), (places, arrays))[0]


def _weights(tree: Any) -> list[Any]:
    """The matrices of all linear maps in a tree."""
    leaves = jax.tree.leaves(tree, is_leaf=_is_linear)
    return [leaf.weight for leaf in leaves if _is_linear(leaf)]


def _is_linear(x: Any) -> bool:
    return isinstance(x, Linear | eqx.nn.Linear)


class ScannedModel(eqx.Module):
    """A `zoo.LanguageModel` at inference, its blocks in stacks: for `run` and `step`.

    The same numbers up to rounding, from programs of one block for each stack. The carry has the
    states of a stack's layers along a first axis (`stacked_carry`).
    """

    embedding: eqx.nn.Embedding
    stacks: tuple[Stack, ...]
    norm: SampleNorm
    head: Linear | None

    @property
    def vocabulary(self) -> int:
        """Number of tokens V."""
        return self.embedding.weight.shape[0]

    @checked
    def init_state(self) -> tuple[Any, ...]:
        """The carry before the first token."""

        def zeros(stack: Stack) -> Any:
            state = eqx.filter_eval_shape(lambda s: _first(s).streamed()[1].init_state(), stack)
            return jax.tree.map(lambda x: jnp.zeros((stack.size, *x.shape), x.dtype), state)

        return tuple(zeros(stack) for stack in self.stacks)

    @checked
    def run(
        self,
        carry: tuple[Any, ...],
        tokens: Int[InputArray, " length"],
        length: Count | None = None,
    ) -> tuple[tuple[Any, ...], Float[Array, "length d_model"]]:
        """As `LanguageModel.run`."""
        return self._through(
            lambda block, state, h: block.run(state, h, length),
            carry,
            self.embedding.weight[tokens],
        )

    @checked
    def step(
        self, carry: tuple[Any, ...], token: Int[InputArray, ""]
    ) -> tuple[tuple[Any, ...], Float[Array, " vocabulary"]]:
        """As `LanguageModel.step`."""
        carry, h = self._through(
            lambda block, state, h: block.step(state, h), carry, self.embedding.weight[token]
        )
        return carry, self.logits(h[None])[0]

    @checked
    def logits(self, h: Float[InputArray, "length d_model"]) -> Float[Array, "length vocabulary"]:
        """As `LanguageModel.logits`."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return product(weight, jax.vmap(self.norm.norm)(h))

    @checked
    def stacked_carry(self, states: Sequence[Any]) -> tuple[Any, ...]:
        """The carry of the states of all layers, one for each, as a `LanguageModel` has them."""
        left, carries = list(states), []
        for stack in self.stacks:
            own, left = left[: stack.size], left[stack.size :]
            carries.append(jax.tree.map(lambda *x: jnp.stack(x), *own))
        return tuple(carries)

    @checked
    def states(self, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        """Inverse of `stacked_carry`."""
        return tuple(
            jax.tree.map(lambda x, k=k: x[k], own)
            for stack, own in zip(self.stacks, carry, strict=True)
            for k in range(stack.size)
        )

    def _through(self, function: Any, carry: tuple[Any, ...], h: Any) -> tuple[Any, Any]:
        after = []
        for stack, before in zip(self.stacks, carry, strict=True):
            state, h = stack.scan(function, before, h)
            after.append(state)
        return tuple(after), h


@checked
def scanned(model: LanguageModel) -> ScannedModel:
    """`model` with neighbouring blocks of equal shapes in stacks: a copy of their arrays."""
    runs = equal_runs(eqx.nn.inference_mode(model).blocks)
    stacks = tuple(Stack(stacked(run)) for run in runs)
    return ScannedModel(model.embedding, stacks, model.norm, model.head)


def _first(stack: Stack) -> Any:
    return jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, stack.blocks)
