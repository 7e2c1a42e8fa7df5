"""Maps of states, written into the rows that make B and C, or stored after the convolution."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..typing import InputArray, checked
from .joined import joined


@checked
def map_rows(
    rows: Float[InputArray, "_ *rest"], before: int, groups: int, states: int, B: Any, C: Any
) -> Float[Array, "_ *rest"]:
    """`rows` with those of B, then of C, `states` of each group, mapped; `before` come first."""
    middle, end = before + groups * states, before + 2 * groups * states
    parts = ((B, rows[before:middle]), (C, rows[middle:end]))
    of_B, of_C = (change(part.reshape(groups, states, *part.shape[1:])) for change, part in parts)
    of_B, of_C = (part.reshape(-1, *part.shape[2:]) for part in (of_B, of_C))
    return joined([rows[:before], of_B, of_C, rows[end:]])


@checked
def by_group(
    y: Float[Array, "*lead channels"],
    groups: int,
    matrix: Float[Array, "groups kept d_state"] | None,
) -> Float[Array, "*lead groups d_state"]:
    """B, or C, of each group from the convolution's output, mapped to the states."""
    y = y.reshape(*y.shape[:-1], groups, y.shape[-1] // groups)
    return y if matrix is None else jnp.einsum("...gk,gkn->...gn", y, matrix)


@checked
def map_columns(
    matrix: Float[InputArray, "groups kept d_state"], change: Any
) -> Float[Array, "groups kept rank"]:
    """The map of `by_group` with `change` applied to its columns."""
    return jnp.swapaxes(jnp.asarray(change(jnp.swapaxes(matrix, 1, 2))), 1, 2)
