"""Blocks that differ in the entries of their arrays alone, which one program serves."""

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ..typing import checked

Block = TypeVar("Block", bound=eqx.Module)


@checked
def equal_runs(blocks: Sequence[Block]) -> list[list[Block]]:
    """`blocks` in their order, neighbours that are alike in one list."""
    runs: list[list[Block]] = []
    for block in blocks:
        if runs and _alike(runs[-1][0], block):
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


@checked
def stacked(blocks: Sequence[Block]) -> Block:
    """Blocks that are alike as one, with arrays that have the blocks along their first axis."""
    arrays = [eqx.filter(with_places_of(blocks[0], block), eqx.is_array) for block in blocks]
    static = eqx.filter(blocks[0], eqx.is_array, inverse=True)
    return eqx.combine(jax.tree.map(lambda *x: jnp.stack(x), *arrays), static)


@checked
def places(block: Any) -> list[eqx.nn.StateIndex]:
    """Where a block keeps what is no parameter, such as the statistics of a BatchNorm."""
    return [leaf for leaf in jax.tree.leaves(block, is_leaf=_is_place) if _is_place(leaf)]


@checked
def with_places_of(first: Any, block: Block) -> Block:
    """`block`, which would read and write the places of `first`, of as many."""
    new = iter(places(first))
    return jax.tree.map(lambda x: next(new) if _is_place(x) else x, block, is_leaf=_is_place)


def _alike(a: Any, b: Any) -> bool:
    def shapes(block: Any) -> Any:
        return [(x.shape, x.dtype) for x in jax.tree.leaves(eqx.filter(block, eqx.is_array))]

    if len(places(a)) != len(places(b)):
        return False
    b = with_places_of(a, b)
    rest = [eqx.filter(block, eqx.is_array, inverse=True) for block in (a, b)]
    return bool(
        jax.tree.structure(a) == jax.tree.structure(b)
        and shapes(a) == shapes(b)
        and eqx.tree_equal(*rest)
    )


def _is_place(x: Any) -> bool:
    return isinstance(x, eqx.nn.StateIndex)
