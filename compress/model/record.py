"""Recordings of a model's layers on data: their inputs, and the gradients by their outputs. Layers
are wrapped so that they record their input and add a perturbation to their output. The rest of the
model runs unchanged.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from zoo.layers.held import AbstractHolder
from zoo.network.classifier import Classifier
from zoo.typing import checked

from .layers import layers_of, path_name, replace_layers
from .stacks import stack_size, stacks_of

SLICE = 16
"""Number of sequences that run through the model at the same time."""

Records = dict[str, Float[np.ndarray, "..."]]
"""For each layer's path, an array [b L d_model], or [b * calls L d_model] for a layer that the
model calls several times. The calls of one sequence are consecutive."""


@dataclass(frozen=True)
class LayerData:
    """Recordings of one layer on data."""

    inputs: Any
    """The layer's inputs [b L d_model]."""
    gradients: Any = None
    """The gradients by its outputs [b L d_model]; None gives all outputs equal weight."""
    lengths: Any = None
    """The lengths of padded sequences [b]; padding comes after them."""


def check_gradients(name: str, data: LayerData) -> None:
    """ValueError unless inputs and gradients of the layer called `name` are of one shape."""
    shapes = np.shape(data.inputs), np.shape(data.gradients)
    if data.gradients is not None and shapes[0] != shapes[1]:
        raise ValueError(
            f"`gradients` for {name} must have the shape of its inputs, {shapes[0]}, got "
            f"{shapes[1]}"
        )


@checked
def layer_inputs(
    model: PyTree, batch: Any, forward: Callable[..., Any] | None = None
) -> dict[str, Float[np.ndarray, "..."]]:
    """The inputs of every layer of `model` on `batch`, by the layer's path.

    `batch` has the sequences along its first axis. `forward(model, x)` runs one of them; it must
    call the layers in plain Python (not in a `vmap`, `jit` of its own or a `checkpoint`), or a
    stack of layers, as `eqx.filter_vmap` makes it, in one `scan`; a stack's layers are named
    `path[0]`, `path[1]` and so on.
    Without it, `model` is a layer, any function of a sequence, or a pair of a
    `zoo.Classifier` and its BatchNorm state, which runs as in inference.
    """
    return record(model, batch, forward, gradients=False)[0]


@checked
def output_gradients(
    model: PyTree, batch: Any, forward: Callable[..., Any] | None = None, *, seed: int = 0
) -> dict[str, Float[np.ndarray, "..."]]:
    """The gradients of the result of `forward` by the output of every layer, by the layer's path. A
    scalar result, such as a loss, is differentiated itself. For any other, such as logits, a random
    combination with normal weights is differentiated, with new weights for each sequence: the mean
    of g g^T is then that of J^T J, J the derivative of the result by the layer's output. The rest
    is as for `layer_inputs`.
    """
    return record(model, batch, forward, gradients=True, seed=seed)[1]


def record(
    model: PyTree,
    batch: Any,
    forward: Callable[..., Any] | None = None,
    *,
    gradients: bool,
    seed: int = 0,
) -> tuple[Records, Records]:
    """`layer_inputs`, and `output_gradients` if requested, in one pass."""
    leaves = jax.tree.leaves(batch)
    single = [x for x in leaves if np.ndim(x) == 0]
    if single:
        raise ValueError(
            "`batch` must hold arrays with an axis of sequences, got a single "
            f"{type(single[0]).__name__}"
        )
    sizes = {len(x) for x in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "`batch` must hold arrays with the same number of sequences, 1 or more, got "
            f"{sorted(sizes) or 'none'}"
        )
    count = sizes.pop()
    run = _run if forward is None else forward
    keys = jax.random.split(jax.random.key(seed), count)
    try:
        pieces = [
            jax.device_get(_recorded(run, model, _rows(batch, k), _rows(keys, k), gradients))
            for k in range(0, count, SLICE)
        ]
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(
            "`batch` must go to a model that calls its layers in plain Python, got one that calls "
            "them inside a scan, vmap, jit or checkpoint of its own: give `inputs` instead"
        ) from error
    sizes = {path_name(keys): stack_size(layer) for keys, layer in layers_of(model)}
    missing = [name for name in sizes if name not in pieces[0][0]]
    if missing:
        raise ValueError(
            f"`batch` must go to a model that calls all its layers, got one that does not call "
            f"{missing[0]}"
        )
    inputs, gradients_by_layer = (
        _by_layer([piece for piece in part if piece], sizes, count)
        for part in zip(*pieces, strict=True)
    )
    return inputs, gradients_by_layer


def _by_layer(pieces: list[Any], sizes: dict[str, int | None], count: int) -> Records:
    """Recordings of the first `count` sequences, by layer. The layers of a stack are separate."""
    joined: Records = {}
    for name, size in sizes.items() if pieces else ():
        calls = [piece[name] for piece in pieces]
        if size is None:
            joined[name] = _joined(calls, count)
            continue
        if len(calls[0]) != size:
            raise ValueError(
                f"batch: the stack {name} must be run by one scan over its {size} layers, got "
                f"{len(calls[0])} calls"
            )
        for k in range(size):
            joined[f"{name}[{k}]"] = _joined([call[k : k + 1] for call in calls], count)
    return joined


def _joined(pieces: list[Any], count: int) -> Float[np.ndarray, "..."]:
    """The recordings of the first `count` sequences: of each piece, an array [b ...] per call."""
    calls = [np.concatenate(call)[:count] for call in zip(*pieces, strict=True)]
    shapes = sorted({call.shape[1:] for call in calls})
    if len(shapes) > 1:
        raise ValueError(
            "`batch` must go to a model that calls a layer on sequences of one shape, got "
            f"{shapes}: give `inputs`, what the layers are fed"
        )
    return calls[0] if len(calls) == 1 else np.stack(calls, axis=1).reshape(-1, *calls[0].shape[1:])


def _rows(tree: PyTree, first: int) -> PyTree:
    """`SLICE` rows from `first`. The last row is repeated if there are fewer, so that shapes stay
    equal."""

    def rows(x):
        at = np.minimum(np.arange(first, first + SLICE), len(x) - 1)
        return jnp.asarray(x[at])

    return jax.tree.map(rows, tree)


class Recorder(AbstractHolder):
    """A layer that records its input and adds a perturbation to its output."""

    record: Callable[[Array], Array | float] = eqx.field(static=True)

    def __call__(self, u, *args, **kwargs):
        return self.layer(u, *args, **kwargs) + self.record(u)

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the layer that the model uses, such as its feedthrough."""
        if name == "layer" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.layer, name)

    def step(self, carry, u_t):
        raise NotImplementedError("only whole sequences are recorded")

    def run(self, carry, u, length=None):
        raise NotImplementedError("only whole sequences are recorded")


@eqx.filter_jit
def _recorded(
    run: Callable[..., Any], model: PyTree, batch: Any, keys: Any, gradients: bool
) -> tuple[dict[str, list[Array]], dict[str, list[Array]]]:
    def result(x, perturbations: dict[str, list[Array]]):
        seen: dict[str, list[Array]] = {}

        def see(name: str, u: Array) -> Array | float:
            calls = seen.setdefault(name, [])
            calls.append(u)
            return perturbations[name][len(calls) - 1] if perturbations else 0.0

        recorders = {
            keys: Recorder(layer, partial(see, path_name(keys))) for keys, layer in layers_of(model)
        }
        # without jit a scan is a loop of Python, whose calls are seen one by one
        with jax.disable_jit() if stacks_of(model) else nullcontext():
            return run(replace_layers(model, recorders), x), seen

    def one(x, key):
        seen = result(x, {})[1]
        if not gradients:
            return seen, {}
        zeros = jax.tree.map(jnp.zeros_like, seen)

        def combination(perturbations):
            parts = [y for y in jax.tree.leaves(result(x, perturbations)[0]) if _is_real(y)]
            if not parts:
                raise ValueError("the model's result must hold real numbers on `batch`, got none")
            if len(parts) == 1 and parts[0].ndim == 0:
                return parts[0]
            return sum(
                jnp.sum(y * jax.random.normal(jax.random.fold_in(key, k), y.shape, y.dtype))
                for k, y in enumerate(parts)
            )

        return seen, jax.grad(combination)(zeros)

    return jax.vmap(one)(batch, keys)


def _is_real(y: Any) -> bool:
    return isinstance(y, jax.Array) and jnp.issubdtype(y.dtype, jnp.floating)


def _run(model: PyTree, x: Any) -> Any:
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[1], eqx.nn.State):
        return eqx.nn.inference_mode(model[0])(x, model[1])[0]
    if isinstance(model, Classifier):
        raise ValueError("`model` must be (classifier, state) with `batch`, got a Classifier alone")
    if not callable(model):
        raise ValueError(
            f"`model` must be callable with `batch`, got a {type(model).__name__}: pass `inputs`, "
            "as `layer_inputs` gives them"
        )
    return model(x)
