"""The parts of a block that act sample by sample: GELU, GLU, dropout. They take few passes over a
long batch: each keeps only its input for the backward pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from ..derivative import both_ways
from ..layers.affine import affine
from ..typing import InputArray, checked


@checked
def gelu(x: Float[InputArray, "length d_model"]) -> Float[Array, "length d_model"]:
    """x Phi(x), in the tanh approximation (Hendrycks and Gimpel 2016) of `jax.nn.gelu`."""
    return _gelu(x)


_gelu = both_ways(
    lambda x: (jax.nn.gelu(x), x),
    lambda x, tangents: jax.jvp(jax.nn.gelu, (x,), tangents)[1],
    lambda x, dy: jax.vjp(jax.nn.gelu, x)[1](dy),
)


class GLU(eqx.Module):
    """Gated linear unit, W x * sigmoid(V x) (Dauphin et al. 2017)."""

    linear: eqx.nn.Linear
    gate: eqx.nn.Linear

    @checked
    def __init__(self, d_model: int, *, key: PRNGKeyArray):
        linear_key, gate_key = jax.random.split(key)
        self.linear = eqx.nn.Linear(d_model, d_model, key=linear_key)
        self.gate = eqx.nn.Linear(d_model, d_model, key=gate_key)

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length d_model"],
        before: Float[InputArray, "length d_model"] | None = None,
    ) -> Float[Array, "length d_model"]:
        """`before`, x before its activation, is unused here; other gates use it."""
        return _gated(affine(self.linear, x), affine(self.gate, x))


class HalfGLU(eqx.Module):
    """A gate with one map: x * sigmoid(V x), as half_glu1 and half_glu2 of S5. The gate multiplies
    the activated x or, with `gates_before`, x before its activation.
    """

    gate: eqx.nn.Linear
    gates_before: bool = eqx.field(static=True)

    @checked
    def __init__(self, d_model: int, *, gates_before: bool, key: PRNGKeyArray):
        self.gate = eqx.nn.Linear(d_model, d_model, key=key)
        self.gates_before = gates_before

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length d_model"],
        before: Float[InputArray, "length d_model"],
    ) -> Float[Array, "length d_model"]:
        return _gated(before if self.gates_before else x, affine(self.gate, x))


GateName = Literal["full_glu", "half_glu1", "half_glu2", "none", "linear"]

GATES: dict[GateName, Callable[..., GLU | HalfGLU | None]] = {
    "full_glu": GLU,
    "half_glu1": partial(HalfGLU, gates_before=False),
    "half_glu2": partial(HalfGLU, gates_before=True),
    "none": lambda d_model, *, key: None,
    "linear": lambda d_model, *, key: None,
}
"""Gates of a layer's activated outputs, by the names of the public S5 code; `linear` has no
activation either."""


def _gated_forward(value, gate):
    return value * jax.nn.sigmoid(gate), (value, gate)


def _gated_tangent(kept, tangents):
    value, gate = kept
    dvalue, dgate = tangents
    open_ = jax.nn.sigmoid(gate)
    return dvalue * open_ + value * open_ * (1 - open_) * dgate


def _gated_backward(kept, dy):
    value, gate = kept
    open_ = jax.nn.sigmoid(gate)
    return dy * open_, dy * value * open_ * (1 - open_)


_gated = both_ways(_gated_forward, _gated_tangent, _gated_backward)


class Dropout(eqx.Module):
    """Each entry is zero with probability `rate`, otherwise divided by 1 - rate. At inference
    nothing changes.

    The entries' random bits are a hash of the key's own words and of their position, which costs a
    tenth of a cryptographic generator's bits and is good enough here. The key is neither split nor
    drawn from, which would take as long as the hashes on narrow batches.
    """

    rate: float = eqx.field(static=True)
    inference: bool = False

    def __check_init__(self):
        if not 0 <= self.rate < 1:
            raise ValueError(f"`rate` must be in [0, 1), got {self.rate}")

    @checked
    def __call__(
        self,
        x: Float[InputArray, "length d_model"],
        *,
        key: PRNGKeyArray | None = None,
        draw: int = 0,
    ) -> Float[Array, "length d_model"]:
        """`draw` numbers independent draws from the same key. ValueError if a key is needed and
        missing.
        """
        if self.inference or self.rate == 0:
            return x
        if key is None:
            raise ValueError("`key` must be a random key, for dropout in training, got None")
        keep = 1 - self.rate
        kept = _hashed_bits(key, draw, x.shape) < jnp.uint32(keep * 2**32)
        return jnp.where(kept, x / keep, 0)


def _hashed_bits(
    key: PRNGKeyArray, draw: int, shape: tuple[int, ...]
) -> UInt32[Array, "length d_model"]:
    """32 random bits for each entry: its position, keyed and mixed twice."""
    words = jax.random.key_data(key)
    first, second = words[0], words[-1] + jnp.uint32(draw) * jnp.uint32(0x9E3779B9)
    row, column = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in (0, 1))
    return _mix(_mix(row * jnp.uint32(shape[1]) + column + first) ^ second)


def _mix(x: UInt32[Array, "length d_model"]) -> UInt32[Array, "length d_model"]:
    """A bijection in which every bit of the result hangs on every bit of x.

    Multiplications and shifts as in MurmurHash3's finalizer, with the constants of C. Wellons'
    search for the least bias (github.com/skeeto/hash-prospector, 16 21f0aaad 15 d35a2d97 15).
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def _summed_once_backward(_, dx):
    return (dx / jnp.minimum(1, 1 + jnp.abs(dx)),)


summed_once = both_ways(lambda x: (x, None), lambda _, tangents: tangents[0], _summed_once_backward)
"""x. Its cotangent, a sum that grows from block to block, is computed and stored here. XLA's fusion
copies cheap sums into all their uses, so each block would repeat the sums of all later blocks. XLA
does not copy divisions, here by ones that it cannot see. The ones are an array, since XLA turns a
division by one number into a product, which it copies.
"""
