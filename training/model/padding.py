"""Models of few states in programs for more states. A state whose parameters are all zero is
stable, has no input and no effect on the output. It gets no gradient, and the optimizer leaves it
as it is. So a model padded with such states is the same function with the same gradients, up to
rounding, and after a shrink training can go on at once in the programs of the larger model, while
those of the smaller one are compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from compress.model.layers import layers_of, replace_layers
from zoo import AbstractSSM


def same_structure(a: Any, b: Any) -> bool:
    """Whether two models differ only in their numbers of states, so that `Padding` applies."""
    return jax.tree.structure(a) == jax.tree.structure(b)


Places = dict[int, Int[np.ndarray, "..."]]
"""By the place of a leaf in a layer: where the smaller leaf's entries are in the larger one."""


class Padding:
    """The way from a model `small` to one of more states, `large`, and back.

    Only structure and shapes of both matter. It applies to every tree that holds such layers, each
    as often as the model does, and in the same order: parameters, and an optimizer's state.
    """

    def __init__(self, large: Any, small: Any):
        self._large = [layer for _, layer in layers_of(large)]
        self._small = [layer for _, layer in layers_of(small)]
        self._places = [_places(*pair) for pair in zip(self._large, self._small, strict=True)]

    @property
    def is_needed(self) -> bool:
        """Whether `large` has more states."""
        return any(self._places)

    def widen(self, tree: Any) -> Any:
        """`tree` with additional states of zeros after its own. All arrays are copies."""

        def spread(x: Any, places: Int[np.ndarray, "..."], like: Any) -> Any:
            wide = np.zeros(like.shape, x.dtype)
            wide.reshape(-1)[places] = np.asarray(x)
            return wide

        return self._change(tree, self._small, self._large, spread)

    def narrow(self, tree: Any) -> Any:
        """`tree` without the states that `widen` adds. All arrays are copies."""

        def gather(x: Any, places: Int[np.ndarray, "..."], _: Any) -> Any:
            return np.asarray(x).reshape(-1)[places]

        return self._change(tree, self._large, self._small, gather)

    def _change(
        self,
        tree: Any,
        before: list[AbstractSSM],
        after: list[AbstractSSM],
        change: Callable[[Any, Int[np.ndarray, "..."], Any], Any],
    ) -> Any:
        changed = {}
        for k, (keys, node) in enumerate(layers_of(tree)):
            layer = k % len(before)
            likes, structure = jax.tree.flatten(after[layer])
            parts = jax.tree.structure(before[layer]).flatten_up_to(node)
            for place, where in self._places[layer].items():
                if isinstance(parts[place], jax.Array | np.ndarray):  # else it is masked out
                    parts[place] = change(parts[place], where, likes[place])
            changed[keys] = structure.unflatten(parts)
        # not jnp.array, which compiles a program for each new shape
        return jax.tree.map(lambda x: jax.device_put(np.array(x)), replace_layers(tree, changed))


def _places(large: AbstractSSM, small: AbstractSSM) -> Places:
    shapes = [x.shape for x in jax.tree.leaves(small)]
    if shapes == [x.shape for x in jax.tree.leaves(large)]:
        return {}
    with jax.enable_x64(True):
        numbered = _numbered(large).first_states(_numbered(small).d_state)
        # marks, which are no numbers, belong to states in their order
        numbers = [
            np.asarray(x if _is_number(old) else _order(old.shape))
            for x, old in zip(jax.tree.leaves(numbered), jax.tree.leaves(large), strict=True)
        ]
    return {
        k: x[tuple(map(slice, shapes[k]))].astype(np.int64)
        for k, (x, old) in enumerate(zip(numbers, jax.tree.leaves(large), strict=True))
        if old.shape != shapes[k]
    }


def _numbered(layer: AbstractSSM) -> AbstractSSM:
    """`layer` with the place of each entry in its array instead of the entry.

    As floating-point numbers, which layers are made of; in double precision all are exact. Arrays
    of other kinds are zero.
    """
    return jax.tree.map(
        lambda x: _order(x.shape) if _is_number(x) else np.zeros(x.shape, x.dtype), layer
    )


def _is_number(x: Any) -> bool:
    """Whether an array, or what stands for its shape, is of floating-point or complex numbers."""
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _order(shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """The place of each entry of an array of this shape."""
    return np.arange(float(np.prod(shape))).reshape(shape)
