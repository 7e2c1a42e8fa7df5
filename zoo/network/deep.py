"""All blocks of a network, one after the other: equal ones in one scan where they are many."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..layers.half import computed_in
from ..typing import Count, InputArray, checked
from .alike import equal_runs, places, stacked
from .block import AbstractBlock


@checked
def run_blocks(
    blocks: Sequence[AbstractBlock],
    x: Float[InputArray, "length d_model"],
    state: eqx.nn.State,
    *,
    length: Count | None = None,
    dt: Float[InputArray, " length"] | None = None,
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "length d_model"], eqx.nn.State]:
    """The residual stream after all blocks, in the precision of `x`, and the next state.

    Arguments are those of a block. More than `scan_above` neighbours that differ in the entries of
    their arrays alone run in one `jax.lax.scan`: their program is compiled once, whatever their
    number. The numbers are the same up to rounding.
    """
    given = x.dtype
    keys = [None] * len(blocks) if key is None else list(jax.random.split(key, len(blocks)))
    options = {"length": length, "dt": dt}
    for run in equal_runs(blocks):
        own, keys = keys[: len(run)], keys[len(run) :]
        if len(run) > run[0].scan_above:
            x, state = _scanned(run, x, state, own, options)
            continue
        for block, block_key in zip(run, own, strict=True):
            x, state = block(x, state, key=block_key, **options)
    return x.astype(given), state


def _scanned(
    run: list[AbstractBlock], x: Array, state: eqx.nn.State, keys: list[Any], options: Any
) -> tuple[Array, eqx.nn.State]:
    """Blocks that are alike, by the program of the first. Each reads and writes its own state."""
    first = run[0]
    kept = [[state.get(place) for place in places(block)] for block in run]
    arrays, static = eqx.partition(stacked(run), eqx.is_array)

    def one(x: Array, inputs: Any) -> tuple[Array, Any]:
        arrays, key, before = inputs
        own = state.substate(first)
        for place, value in zip(places(first), before, strict=True):
            own = own.set(place, value)
        x, own = eqx.combine(arrays, static)(x, own, key=key, **options)
        return x, [own.get(place) for place in places(first)]

    own_keys, before = (jax.tree.map(lambda *x: jnp.stack(x), *each) for each in (keys, kept))
    x, after = jax.lax.scan(one, computed_in(x, first.precision), (arrays, own_keys, before))
    for k, block in enumerate(run):
        for place, values in zip(places(block), after, strict=True):
            state = state.set(place, jax.tree.map(lambda value, k=k: value[k], values))
    return x, state
