"""Models with weights, and states, of 8 bits or fewer, for inference.

Weights are symmetric: whole numbers times a step for each row, which is a channel of what the
matrix gives. What sets eigenvalues and steps stays as it is, and the recurrence is computed in
floating point: below 8 bits a recurrent matrix loses what it remembers (Abreu, Pedersen et al.,
"Q-S5: Towards Quantized State Space Models", 2024, arXiv 2406.09477).
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, PyTree

from ..layers.affine import Linear
from ..layers.base import AbstractSSM
from ..layers.held import AbstractHolder
from ..layers.matrix import AbstractMatrix, Int8Matrix
from ..masks import within
from ..typing import Count, InputArray, checked

Model = TypeVar("Model", bound=PyTree)

MOST_BITS = 8
LEAST_BITS = 2


@checked
def quantize(model: Model, bits: int | None = MOST_BITS, *, state_bits: int | None = None) -> Model:
    """`model` with the weights of all projections and embeddings in `bits` bits, 2 to 8.

    Linear maps, embeddings, and the B and C of linear layers become an `Int8Matrix`, of a quarter
    of the bytes of float32 whatever the bits. The recurrence, convolutions, norms, biases, and the
    maps that make step sizes stay; with `bits=None` all weights stay. With `state_bits` the carry
    of each layer is rounded after every sample, with one step size for each row. Layers then
    process samples one by one, as a streaming device would.

    `model` is any pytree that holds layers or linear maps: a classifier, a language model, one that
    is `scanned`. The result is called, streamed and generates as before, but cannot be trained or
    compressed: compress first. Raises a ValueError for other numbers of bits, for a model that is
    quantised already, and for one without weights.
    """
    for name, given in (("bits", bits), ("state_bits", state_bits)):
        if given is not None and not LEAST_BITS <= given <= MOST_BITS:
            raise ValueError(f"`{name}` must be from {LEAST_BITS} to {MOST_BITS}, got {given}")
    kinds = (AbstractSSM, AbstractMatrix, *_HOLDERS)
    leaves = jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, kinds))
    if any(_is_quantized(leaf) for leaf in leaves):
        raise ValueError("`model` must have weights in floating point, got one that is quantised")
    if bits is None and state_bits is None:
        raise ValueError("`bits` must be from 2 to 8 without `state_bits`, got None")
    if not any(isinstance(leaf, kinds) for leaf in leaves):
        raise ValueError("`model` must hold layers, linear maps or embeddings, got none")

    def part(x: Any) -> Any:
        if isinstance(x, AbstractSSM):
            return _layer(x, bits, state_bits)
        return _held(x, bits) if bits and isinstance(x, _HOLDERS) else x

    return jax.tree.map(part, model, is_leaf=lambda x: isinstance(x, kinds))


@checked
def int8_matrix(weight: Float[InputArray, "*lead outputs inputs"], bits: int) -> Int8Matrix:
    """`weight` in `bits` bits: each row over its largest entry, rounded to the nearest number."""
    values, scale = _rounded(jnp.asarray(weight), bits)
    return Int8Matrix(values, scale)


class Int8State(eqx.Module):
    """An array that a layer carries, as whole numbers and a step for each row of its last axis.

    A complex one has its real and its imaginary parts along one more axis.
    """

    values: Int8[Array, "..."]
    scale: Float[Array, "..."]
    is_complex: bool = eqx.field(static=True)

    @classmethod
    @checked
    def of(cls, x: Any, bits: int) -> "Int8State":
        """`x`, real or complex, rounded."""
        is_complex = bool(jnp.iscomplexobj(x))
        rows = jnp.concatenate([jnp.real(x), jnp.imag(x)], axis=-1) if is_complex else x
        values, scale = _rounded(rows, bits)
        return cls(values, scale, is_complex)

    @checked
    def restored(self) -> Any:
        """The array."""
        x = self.values * self.scale[..., None]
        return jax.lax.complex(*jnp.split(x, 2, axis=-1)) if self.is_complex else x


class QuantizedSSM(AbstractHolder):
    """A layer whose matrices of B and C, or whose states, are of 8 bits or fewer.

    The layer that it holds has an `Int8Matrix` instead of each of its `matrices`.
    """

    state_bits: int | None = eqx.field(static=True)

    @property
    def takes_intervals(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.layer.takes_intervals and self.state_bits is None

    @checked
    def restored(self) -> AbstractSSM:
        """The layer with arrays in floating point."""
        layer = self.layer
        names = [n for n in layer.matrices if isinstance(getattr(layer, n), Int8Matrix)]
        if not names:
            return layer
        dense = [getattr(layer, name).dense() for name in names]
        return eqx.tree_at(lambda x: [getattr(x, name) for name in names], layer, dense)

    @checked
    def __call__(
        self, u: Float[InputArray, "length d_model"], *arguments: Any, **options: Any
    ) -> Float[Array, "length d_model"]:
        if self.state_bits is None:
            return self.restored()(u, *arguments, **options)
        return self.run(self.init_state(), u)[1]

    @checked
    def init_state(self) -> Any:
        return self._rounded(self.restored().init_state())

    @checked
    def step(
        self, carry: Any, u_t: Float[InputArray, " d_model"]
    ) -> tuple[Any, Float[Array, " d_model"]]:
        carry, y = self.restored().step(_restored(carry), u_t)
        return self._rounded(carry), y

    @checked
    def run(
        self, carry: Any, u: Float[InputArray, "length d_model"], length: Count | None = None
    ) -> tuple[Any, Float[Array, "length d_model"]]:
        if self.state_bits is None:
            return self.restored().run(carry, u, length)

        def one(carry: Any, sample: Any) -> tuple[Any, Any]:
            u_t, counts = sample
            after, y = self.step(carry, u_t)
            return jax.tree.map(lambda a, b: jnp.where(counts, a, b), after, carry), y

        L = u.shape[0]
        counts = jnp.ones(L, bool) if length is None else within(length, L)
        return jax.lax.scan(one, carry, (jnp.asarray(u), counts))

    @checked
    def resized(self, n: int) -> "AbstractSSM":
        raise ValueError("`layer` must be in floating point where its states change, got 8 bits")

    @checked
    def first_states(self, n: int) -> "AbstractSSM":
        return self.resized(n)

    def _rounded(self, carry: Any) -> Any:
        bits = self.state_bits
        if bits is None:
            return carry
        return jax.tree.map(lambda x: Int8State.of(x, bits) if _is_state(x) else x, carry)


_HOLDERS = (Linear, eqx.nn.Linear, eqx.nn.Embedding)
"""What has a matrix `weight`."""


def _held(part: Any, bits: int) -> Any:
    return eqx.tree_at(lambda x: x.weight, part, int8_matrix(part.weight, bits))


def _layer(layer: AbstractSSM, bits: int | None, state_bits: int | None) -> AbstractSSM:
    def holders(x: AbstractSSM) -> list[Any]:
        fields = [v for k, v in vars(x).items() if k not in x.dynamics]
        leaves = jax.tree.leaves(fields, is_leaf=lambda leaf: isinstance(leaf, _HOLDERS))
        return [leaf for leaf in leaves if isinstance(leaf, _HOLDERS)]

    found = holders(layer) if bits else []
    if found and bits:
        layer = eqx.tree_at(holders, layer, [_held(each, bits) for each in found])
    names = layer.matrices if bits else ()
    if names and bits:
        new = [int8_matrix(getattr(layer, name), bits) for name in names]
        layer = eqx.tree_at(lambda x: [getattr(x, name) for name in names], layer, new)
    return QuantizedSSM(layer, state_bits) if names or state_bits else layer


def _is_state(x: Any) -> bool:
    return x.ndim > 0 and jnp.issubdtype(x.dtype, jnp.inexact)


def _is_quantized(leaf: Any) -> bool:
    if isinstance(leaf, AbstractSSM):
        inner = jax.tree.leaves(leaf, is_leaf=lambda x: isinstance(x, AbstractMatrix))
        return isinstance(leaf, QuantizedSSM) or any(isinstance(x, AbstractMatrix) for x in inner)
    return isinstance(getattr(leaf, "weight", leaf), AbstractMatrix)


def _restored(carry: Any) -> Any:
    def is_rounded(x: Any) -> bool:
        return isinstance(x, Int8State)

    return jax.tree.map(lambda x: x.restored() if is_rounded(x) else x, carry, is_leaf=is_rounded)


def _rounded(x: Array, bits: int) -> tuple[Array, Array]:
    """Whole numbers and their step, for each row of the last axis; a row of zeros stays one."""
    most = 2 ** (bits - 1) - 1
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    scale = jnp.max(jnp.abs(wide), axis=-1) / most
    values = jnp.round(wide / jnp.where(scale > 0, scale, 1)[..., None])
    return values.astype(jnp.int8), scale.astype(x.dtype)
