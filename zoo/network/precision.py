"""Training in half precision: what is computed in what, in one place."""

from dataclasses import replace
from typing import Any, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..layers.affine import Linear
from ..layers.base import AbstractSSM
from ..layers.half import Precision
from ..typing import checked
from .block import AbstractBlock
from .norm import AbstractNorm

Model = TypeVar("Model", bound=PyTree)

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@checked
def in_precision(model: Model, precision: Precision) -> Model:
    """`model` for a training step in `precision`: "float32" (the model itself), "bf16" or
    "bf16-systems".

    With "bf16-systems" LRU and S5 get their inputs in bfloat16, so that CPUs with tiles (AMX)
    compute products with B and C in it, from 32 channels on. Everything else stays in single
    precision; other layers only round their inputs.

    With "bf16" residual blocks have activations, weights of linear maps and products with these in
    bfloat16. In single precision stay

    - the `dynamics` of layers, recurrences and their states, complex systems (LRU, S5, S4D,
      LinOSS), but for products with B and C of LRU and S5 on CPUs with tiles, and short
      convolutions;
    - norms, with their sums, and biases;
    - what is around the blocks: encoder, pooling, head, and so the logits and the loss.

    The model that is trained keeps all parameters in single precision; take the gradient through
    this function, and it and the optimizer's moments are in single precision too:

        loss = lambda model: objective(zoo.in_precision(model, "bf16"), batch)

    ValueError for another `precision`. After Micikevicius et al., ICLR 2018 (arXiv 1710.03740),
    whose loss scale bfloat16 does not need.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "float32":
        return model

    def of(node: Any) -> Any:
        if not _is_block(node):
            return node
        return replace(_in_half(node) if precision == "bf16" else node, precision=precision)

    return jax.tree.map(of, model, is_leaf=_is_block)


def _is_block(node: Any) -> bool:
    return isinstance(node, AbstractBlock)


def _in_half(node: Any) -> Any:
    """`node` with the weights of its linear maps in half precision."""
    if isinstance(node, eqx.nn.Linear | Linear):
        half = jnp.asarray(node.weight, jnp.bfloat16)
        return eqx.tree_at(lambda linear: linear.weight, node, half)
    if isinstance(node, AbstractNorm) or not isinstance(node, eqx.Module):
        return node
    fixed = node.dynamics if isinstance(node, AbstractSSM) else ()
    parts = {name: part for name, part in _parts(node).items() if name not in fixed}
    if not parts:
        return node
    return eqx.tree_at(
        lambda node: [getattr(node, name) for name in parts],
        node,
        [_in_half(part) for part in parts.values()],
    )


def _parts(node: eqx.Module) -> dict[str, eqx.Module]:
    """The fields of a module that are modules themselves."""
    named = {name: getattr(node, name) for name in node.__dataclass_fields__}
    return {name: part for name, part in named.items() if isinstance(part, eqx.Module)}
