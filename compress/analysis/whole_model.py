"""How much a layer's cut changes the result of the whole model: a first-order estimate, and a
bound. On a batch, the change dy of a cut layer's output is known: both layers are run on the
layer's inputs. To first order the logits then change by J dy, and with a random combination v of
the logits, whose gradient g = J^T v is recorded, E |<g, dy>|^2 = |J dy|^2.

The bound follows dy through the rest of the model. All constants hold for the unperturbed batch,
for any perturbation:

    x + after(ssm(norm(x)))   1 + product of the gains of its parts,
    norm by fixed numbers     the largest scale; by the sample's own, 2 max |weight| / min(s), with
                              s the deviation (or root mean square) of the batch's own samples,
    ssm                       |D| + 2 (sum of all Hankel singular values),
    GELU                      1.13,
    GLU  W z * sigmoid(V z)   |W| + max |W z + w| |V| / 4,
    mean and linear head      |head| / sqrt(samples); of the last sample |head|.

For other blocks (norm after the layer, half GLU, attention) no bound is known.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from zoo import AbstractSSM
from zoo.layers.affine import affine
from zoo.layers.base import as_linear
from zoo.network.block import Block
from zoo.network.classifier import Classifier
from zoo.network.norm import FixedNorm, SampleNorm, fixed_norms
from zoo.network.pointwise import GLU, gelu
from zoo.typing import checked

from ..families import family_of
from ..linear.balance import all_values, gramian_factors, hankel_svd
from ..linear.system import double_lti
from ..model.layers import layers_of, path_name
from ..model.record import record
from ..numerics.threads import one_blas_thread
from ..plans import Plan

GELU_SLOPE = 1.13
"""The largest slope of GELU in the tanh approximation: 1.1290."""


@checked
def whole_model(plan: Plan, model: PyTree, batch: Any, *, seed: int = 0) -> Plan:
    """`plan` with two more columns: how far each layer's cut moves the result of `model`. `model`
    is the model of the plan: a layer, a function of one sequence, or a pair of a `zoo.Classifier`
    and its state, run as in inference; `batch` has sequences along its first axis.

    - `change` is the root of the mean over the batch of the squared change of the result (its
      Euclidean norm, of logits say), to first order, by one random combination for each sequence;
    - `change_bound` is above the change of every sequence of the batch; infinite unless the model
      is a pair with a `Classifier` of linear layers.

    Both are for the cut of that layer alone. ValueError for a plan of another model, and as for
    `layer_inputs`.
    """
    layers = [(path_name(keys), layer) for keys, layer in layers_of(model)]
    if [path for path, _ in layers] != [row.path for row in plan.layers]:
        raise ValueError(
            f"`plan` must be of the layers {', '.join(path for path, _ in layers)}, got "
            f"{', '.join(row.path for row in plan.layers)}"
        )
    inputs, gradients = record(model, batch, gradients=True, seed=seed)
    tails = _tails(model, batch)
    rows = []
    for k, row in enumerate(plan.layers):
        if row.cut is None:
            rows.append(replace(row, change=0.0, change_bound=0.0))
            continue
        dy = _difference(row.cut.before, row.cut.after, inputs[row.path])
        # of a layer that is called several times, the calls of a sequence follow one another
        parts = np.sum(gradients[row.path] * dy, axis=(1, 2), dtype=np.float64)
        per_sequence = parts.reshape(_size(batch), -1).sum(axis=1)
        largest = float(np.max(np.linalg.norm(dy.astype(np.float64), axis=(1, 2))))
        change = float(np.sqrt(np.mean(per_sequence**2)))
        bound = np.inf if tails is None else largest * tails[k]
        rows.append(replace(row, change=change, change_bound=float(bound)))
    return Plan(tuple(rows))


def _size(batch: Any) -> int:
    return len(jax.tree.leaves(batch)[0])


@eqx.filter_jit
def _outputs(layer: AbstractSSM, u: Any) -> Float[Array, "b L d_model"]:
    return jax.vmap(layer)(u)


def _difference(
    before: AbstractSSM, after: AbstractSSM, u: Float[np.ndarray, "b L d_model"]
) -> Float[np.ndarray, "b L d_model"]:
    return np.asarray(_outputs(before, u)) - np.asarray(_outputs(after, u))


def _tails(model: PyTree, batch: Any) -> list[float] | None:
    """The gain from the output of each layer to the logits; None where no bound is known."""
    is_pair = isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], Classifier)
    if not is_pair:
        return None
    fixed = fixed_norms(*model)
    if not all(map(_is_known, fixed.blocks)):
        return None
    families = [family_of(layer) for _, layer in layers_of(fixed)]
    if not all(family.has_bound and family.is_one_system for family in families):
        return None
    streams = _streams(fixed, batch)
    length = streams[0][0].shape[1]
    tail = _norm_of(fixed.head.weight) / (np.sqrt(length) if fixed.pooling == "mean" else 1)
    found: list[float] = []
    for block, (x, y) in zip(reversed(fixed.blocks), reversed(streams), strict=True):
        after, layers = _after_gain(block, y), [layer for _, layer in layers_of(block)]
        found = [after * tail] * len(layers) + found
        gain = _norm_gain(block.norm, x) * sum(map(_layer_gain, layers)) * after
        tail = tail * (1 + gain)
    return found


def _is_known(block: Any) -> bool:
    """Whether a bound for this kind of block is known: norm first, and a full GLU."""
    return isinstance(block, Block) and block.norm_first and isinstance(block.glu, GLU)


@eqx.filter_jit
def _streams(model: Any, batch: Any) -> list[tuple[Array, Array]]:
    """Before each block the residual stream, and in it the layer's output, [b L d_model] each."""

    def one(x: Any) -> list[tuple[Array, Array]]:
        state, h, seen = eqx.nn.State(model), model.encoder(x), []
        for block in model.blocks:
            y = block.ssm(block.norm(h, state)[0])
            seen.append((h, y))
            h = h + block.after(y)
        return seen

    return jax.vmap(one)(batch)


def _after_gain(block: Block, y: Float[Array, "b L d_model"]) -> float:
    """Of GELU and GLU, for outputs of which one side is `y`."""
    assert isinstance(block.glu, GLU)  # `_is_known` has seen to it
    linear, gate = block.glu.linear, block.glu.gate
    value = jax.vmap(lambda y: affine(linear, gelu(y)))(y)
    largest = float(jnp.max(jnp.abs(value)))
    return GELU_SLOPE * (_norm_of(linear.weight) + largest * _norm_of(gate.weight) / 4)


def _norm_gain(norm: Any, x: Float[Array, "b L d_model"]) -> float:
    assert isinstance(norm, SampleNorm)
    inner = norm.norm
    if isinstance(inner, FixedNorm):
        return float(jnp.max(jnp.abs(inner.scale)))
    about = x - jnp.mean(x, -1, keepdims=True) if isinstance(inner, eqx.nn.LayerNorm) else x
    least = float(jnp.min(jnp.sqrt(jnp.mean(about**2, -1) + inner.eps)))
    weight = 1.0 if inner.weight is None else float(jnp.max(jnp.abs(inner.weight)))
    return 2 * weight / least


def _layer_gain(layer: AbstractSSM) -> float:
    """At least the H-infinity norm of the real map, with D."""
    lti = double_lti(layer)
    with one_blas_thread():
        sigma = all_values("real", hankel_svd("real", *gramian_factors(lti, "real")), lti.d_state)
    D: Sequence[Any] | np.ndarray = np.asarray(as_linear(layer).to_lti().D)
    direct = float(np.max(np.abs(D))) if np.ndim(D) == 1 else _norm_of(D)
    return direct + 2 * float(np.sum(sigma))


def _norm_of(matrix: Any) -> float:
    return float(np.linalg.norm(np.asarray(matrix, np.float64), ord=2))
